//! SSM: the agent of the instance, its restore commands, and the parameters of its application.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::error::ErrorMetadata;
use aws_sdk_ssm::operation::describe_instance_information::DescribeInstanceInformationOutput;
use aws_sdk_ssm::operation::get_command_invocation::GetCommandInvocationOutput;
use aws_sdk_ssm::operation::get_parameter::{GetParameterError, GetParameterOutput};
use aws_sdk_ssm::operation::list_commands::ListCommandsOutput;
use aws_sdk_ssm::operation::put_parameter::PutParameterOutput;
use aws_sdk_ssm::operation::send_command::SendCommandOutput;
use aws_sdk_ssm::primitives::DateTime;
use aws_sdk_ssm::types::{Command, InstanceInformation, Parameter, PingStatus};
use aws_smithy_mocks::{MockResponse, Rule, RuleMode, mock, mock_client};
use serde_json::{Value, json};

use super::{BACKUP, COMMAND, Given, INSTANCE, Journal, Record, write};

/// Returns the client of this SSM.
pub(super) fn client(given: &Given, journal: &Journal, record: &Record) -> Client {
    let (ping, commands, invocation) = (ping(given), commands(given), invocation(given));
    let state = json!({"schema_version": 1, "first_backup": BACKUP});
    let state = given.parameter.then_some(state);
    let state = parameter("/rekindle/dtr", &Arc::new(Mutex::new(state)));
    let breaker = parameter("/rekindle/dtr/breaker", record);
    let (put, send) = (put_breaker(journal, record), send(given, journal));
    let rules = [&ping, &commands, &invocation, &state, &breaker, &put, &send];
    mock_client!(aws_sdk_ssm, RuleMode::MatchAny, rules)
}

fn ping(given: &Given) -> Rule {
    let registered = given.registered;
    mock!(Client::describe_instance_information).then_output(move || {
        let information = InstanceInformation::builder()
            .instance_id(INSTANCE)
            .ping_status(PingStatus::Online)
            .build();
        DescribeInstanceInformationOutput::builder()
            .set_instance_information_list(Some(vec![information; usize::from(registered)]))
            .build()
    })
}

fn commands(given: &Given) -> Rule {
    let sent_before = given.sent_before.clone();
    mock!(Client::list_commands).then_output(move || {
        let command = sent_before.as_ref().map(|(status, _)| {
            Command::builder()
                .command_id(COMMAND)
                .requested_date_time(DateTime::from(SystemTime::now()))
                .status((*status).into())
                .build()
        });
        ListCommandsOutput::builder()
            .set_commands(Some(command.into_iter().collect()))
            .build()
    })
}

fn invocation(given: &Given) -> Rule {
    let (status, output) = given.sent_before.clone().unwrap_or_default();
    mock!(Client::get_command_invocation).then_output(move || {
        GetCommandInvocationOutput::builder()
            .status(status.into())
            .standard_output_content(&output)
            .build()
    })
}

fn parameter(name: &'static str, value: &Record) -> Rule {
    let value = Arc::clone(value);
    mock!(Client::get_parameter)
        .match_requests(move |request| request.name() == Some(name))
        .then_compute_response(move |_| {
            if let Some(value) = &*value.lock().unwrap() {
                let parameter = Parameter::builder().value(value.to_string()).build();
                let output = GetParameterOutput::builder().parameter(parameter).build();
                return MockResponse::Output(output);
            }
            let missing = ErrorMetadata::builder().code("ParameterNotFound").build();
            MockResponse::Error(GetParameterError::generic(missing))
        })
}

fn put_breaker(journal: &Journal, record: &Record) -> Rule {
    let (journal, record) = (Arc::clone(journal), Arc::clone(record));
    mock!(Client::put_parameter).then_compute_output(move |request| {
        assert_eq!(request.name(), Some("/rekindle/dtr/breaker"));
        let value: Value = serde_json::from_str(request.value().unwrap()).unwrap();
        *record.lock().unwrap() = Some(value.clone());
        let breaker = &value["groups"]["dtr"];
        let entry = format!("record {} {}", breaker["state"], breaker["trips"]);
        write(&journal, entry.replace('"', ""));
        PutParameterOutput::builder().build()
    })
}

fn send(given: &Given, journal: &Journal) -> Rule {
    if given.refuses_command {
        mock!(Client::send_command)
            .sequence()
            .http_status(
                400,
                Some(json!({"__type": "InvalidInstanceId"}).to_string()),
            )
            .repeatedly()
            .build()
    } else {
        let journal = Arc::clone(journal);
        mock!(Client::send_command).then_compute_output(move |request| {
            assert_eq!(request.document_name(), Some("rekindle-restore"));
            assert_eq!(request.instance_ids(), [INSTANCE]);
            let parameters = request.parameters().unwrap();
            let (operation, candidates) =
                (&parameters["OperationId"][0], &parameters["Candidates"][0]);
            write(&journal, format!("send {operation} {candidates}"));
            let command = Command::builder().command_id(COMMAND).build();
            SendCommandOutput::builder().command(command).build()
        })
    }
}
