//! SSM agents and commands on many pages, and SSM's responses before it is consistent.

use aws_sdk_ssm::error::ErrorMetadata;
use aws_sdk_ssm::operation::describe_instance_information::{
    DescribeInstanceInformationError, DescribeInstanceInformationOutput,
};
use aws_sdk_ssm::operation::get_command_invocation::GetCommandInvocationError;
use aws_sdk_ssm::operation::list_commands::ListCommandsOutput;
use aws_sdk_ssm::operation::send_command::SendCommandOutput;
use aws_sdk_ssm::primitives::DateTime;
use aws_sdk_ssm::types::InstanceInformation;
use aws_smithy_mocks::{MockResponse, Rule, RuleMode, mock, mock_client};
use time::macros::datetime;

use super::*;

const COMMAND: &str = "6d2f0f0e-5d0b-4f0a-9b57-0d5b1a3f2c11";

fn instance(number: usize) -> InstanceId {
    format!("i-{number:08x}").parse().unwrap()
}

fn command_id() -> CommandId {
    COMMAND.parse().unwrap()
}

/// An SSM with every instance registered except number 7, which it either leaves out or refuses.
fn agents(refuses: bool) -> Rule {
    mock!(Client::describe_instance_information).then_compute_response(move |request| {
        let asked = request.filters()[0].values();
        assert!(asked.len() <= MOST_INSTANCES && request.filters()[0].key() == "InstanceIds");
        if refuses && asked.contains(&instance(7).to_string()) {
            let metadata = ErrorMetadata::builder().code("InvalidInstanceId").build();
            return MockResponse::Error(DescribeInstanceInformationError::generic(metadata));
        }
        let known = asked
            .iter()
            .filter(|id| **id != instance(7).to_string())
            .map(|id| {
                let ping = if *id == instance(8).to_string() {
                    PingStatus::ConnectionLost
                } else {
                    PingStatus::Online
                };
                InstanceInformation::builder()
                    .instance_id(id)
                    .ping_status(ping)
                    .build()
            });
        let output = DescribeInstanceInformationOutput::builder()
            .set_instance_information_list(Some(known.collect()))
            .build();
        MockResponse::Output(output)
    })
}

#[tokio::test]
async fn an_unregistered_instance_is_absent_and_the_others_are_found() {
    let instances: Vec<InstanceId> = (1..=120).map(instance).collect();
    for refuses in [false, true] {
        let rule = agents(refuses);
        let client = mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [&rule]);
        let pings = ping(&client, &instances).await.unwrap();
        assert_eq!(pings.len(), 119);
        assert_eq!(pings.get(&instance(7)), None);
        assert_eq!(pings[&instance(8)], Ping::ConnectionLost);
        assert_eq!(pings[&instance(120)], Ping::Online);
    }
}

fn listed(id: &str, at: i64, instances: &[usize]) -> Command {
    Command::builder()
        .command_id(id)
        .requested_date_time(DateTime::from_secs(at))
        .parameters("Purpose", vec!["scheduled".to_owned()])
        .set_instance_ids(Some(
            instances
                .iter()
                .map(|number| instance(*number).to_string())
                .collect(),
        ))
        .status("InProgress".into())
        .build()
}

#[tokio::test]
async fn commands_are_listed_on_all_pages_from_the_given_time_on() {
    let since = datetime!(2026-11-23 02:15:00.5 UTC);
    let start = datetime!(2026-11-23 02:15:00 UTC).unix_timestamp();
    let rule = mock!(Client::list_commands).then_compute_output(move |request| {
        let filters: Vec<(&str, &str)> = request
            .filters()
            .iter()
            .map(|filter| (filter.key().as_str(), filter.value()))
            .collect();
        let expected = [
            ("DocumentName", "rekindle-backup"),
            ("InvokedAfter", "2026-11-23T02:15:00Z"),
            ("ExecutionStage", "Executing"),
        ];
        assert_eq!(filters, expected);
        let page = ListCommandsOutput::builder();
        match request.next_token() {
            None => page
                .commands(listed(COMMAND, start + 60, &[1, 2]))
                .next_token("more")
                .build(),
            Some(_) => page
                .commands(listed(
                    "0e1d2c3b-0000-4000-8000-000000000001",
                    start + 1,
                    &[3],
                ))
                .commands(listed("0e1d2c3b-0000-4000-8000-000000000002", start, &[4]))
                .build(),
        }
    });
    let client = mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [&rule]);
    let query = CommandQuery::new("rekindle-backup", since).executing();
    let found = commands(&client, query).await.unwrap();
    assert_eq!(found.len(), 2, "the third was sent before `since`");
    assert_eq!(found[0].command_id, command_id());
    assert_eq!(found[0].instance_ids, [instance(1), instance(2)]);
    assert_eq!(found[0].status, InvocationStatus::InProgress);
    assert_eq!(found[0].parameters["Purpose"], ["scheduled"]);
}

fn invocation_answer(status: &str, details: &str, code: i32) -> GetCommandInvocationOutput {
    GetCommandInvocationOutput::builder()
        .status(status.into())
        .status_details(details)
        .response_code(code)
        .standard_output_content("out")
        .standard_error_content("err")
        .build()
}

fn invocation_error(code: &'static str) -> GetCommandInvocationError {
    GetCommandInvocationError::generic(ErrorMetadata::builder().code(code).build())
}

#[tokio::test(start_paused = true)]
async fn a_missing_invocation_is_requested_again_five_times_at_most() {
    let late = mock!(Client::get_command_invocation)
        .match_requests(|request| request.plugin_name() == Some(AGENT_STEP))
        .sequence()
        .error(|| invocation_error("InvocationDoesNotExist"))
        .times(2)
        .output(|| invocation_answer("Failed", "Failed", 21))
        .build();
    let client = mock_client!(aws_sdk_ssm, RuleMode::Sequential, [&late]);
    let found = invocation(&client, &command_id(), &instance(1))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (found.status, found.response_code),
        (InvocationStatus::Failed, 21)
    );
    assert_eq!(
        (found.output.as_str(), found.errors.as_str()),
        ("out", "err")
    );

    let never = mock!(Client::get_command_invocation)
        .then_error(|| invocation_error("InvocationDoesNotExist"));
    let client = mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [&never]);
    assert_eq!(
        invocation(&client, &command_id(), &instance(1))
            .await
            .unwrap(),
        None
    );
    assert_eq!(never.num_calls(), 5);
}

#[tokio::test]
async fn a_command_without_steps_has_its_own_status() {
    let rule = mock!(Client::get_command_invocation).then_compute_response(|request| match request
        .plugin_name()
    {
        Some(_) => MockResponse::Error(invocation_error("InvalidPluginName")),
        None => MockResponse::Output(invocation_answer("TimedOut", "Delivery Timed Out", -1)),
    });
    let client = mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [&rule]);
    let found = invocation(&client, &command_id(), &instance(1))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.status, InvocationStatus::DeliveryTimedOut);
}

#[tokio::test]
async fn the_errors_are_those_of_the_fetching_step_if_the_agent_did_not_run() {
    let rule = mock!(Client::get_command_invocation).then_compute_output(|request| {
        match request.plugin_name() {
            Some(FETCH_STEP) => invocation_answer("Failed", "Failed", 1),
            _ => invocation_answer("Failed", "Failed", -1),
        }
    });
    let client = mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [&rule]);
    let found = invocation(&client, &command_id(), &instance(1))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (found.response_code, found.errors.as_str()),
        (-1, "fetchAgent failed: err")
    );
}

#[tokio::test]
async fn the_failure_of_one_application_does_not_stop_its_batch() {
    let rule = mock!(Client::send_command)
        .match_requests(|request| {
            request.max_errors() == Some("100%")
                && request.max_concurrency() == Some("50")
                && request.timeout_seconds() == Some(30)
                && request
                    .comment()
                    .is_some_and(|comment| comment.len() == 100)
        })
        .then_output(|| {
            SendCommandOutput::builder()
                .command(Command::builder().command_id(COMMAND).build())
                .build()
        });
    let client = mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [&rule]);
    let instances = [instance(1), instance(2)];
    let comment = "x".repeat(200);
    let sent = send(
        &client,
        "rekindle-backup",
        &instances,
        Parameters::new(),
        30,
        &comment,
    )
    .await;
    assert_eq!(sent.unwrap(), command_id());
}
