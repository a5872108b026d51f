//! Which calls an event or a sweep makes for an instance in its terminate hook.

use std::sync::{Arc, Mutex};

use aws_sdk_autoscaling::operation::complete_lifecycle_action::CompleteLifecycleActionOutput;
use aws_sdk_autoscaling::operation::describe_auto_scaling_instances::DescribeAutoScalingInstancesOutput;
use aws_sdk_autoscaling::types::AutoScalingInstanceDetails;
use aws_sdk_ssm::operation::cancel_command::CancelCommandOutput;
use aws_sdk_ssm::operation::describe_instance_information::DescribeInstanceInformationOutput;
use aws_sdk_ssm::operation::get_command_invocation::GetCommandInvocationOutput;
use aws_sdk_ssm::operation::list_commands::ListCommandsOutput;
use aws_sdk_ssm::operation::send_command::SendCommandOutput;
use aws_sdk_ssm::primitives::DateTime;
use aws_sdk_ssm::types::{Command, InstanceInformation, PingStatus};
use aws_smithy_mocks::mock;
use shared::command::{BackupCommand, Purpose};
use shared::exit_code::ExitCode;
use shared::id::{BackupId, InstanceId};
use shared::operation::Operation;
use shared::report::{FailureReport, Report};
use time::OffsetDateTime;

use super::*;
use crate::answer::Answer;
use crate::sweep;
use crate::testing::{Bucket, context_with_groups, group, invocations};

const INSTANCE: &str = "i-04d1c8f7a2b3e6905";
const COMMAND: &str = "6d2f0f0e-5d0b-4f0a-9b57-0d5b1a3f2c11";

/// The state of AWS when an event or a sweep comes.
#[derive(Clone)]
struct Given {
    /// The instance's state at each call; the last one stays.
    states: &'static [&'static str],
    /// Whether its SSM agent is registered.
    registered: bool,
    /// A final backup that was sent before: how many seconds ago, its status, and its output.
    sent_before: Option<(u32, &'static str, String)>,
    /// Whether the hook has its answer already.
    answered: bool,
}

fn waiting() -> Given {
    Given {
        states: &["Terminating:Wait"],
        registered: true,
        sent_before: None,
        answered: false,
    }
}

fn instance() -> InstanceId {
    INSTANCE.parse().unwrap()
}

fn busy() -> String {
    Report::Failure(FailureReport {
        operation_id: Operation::FinalBackup(instance()),
        exit_code: ExitCode::Busy,
        message: "a scheduled backup is running".to_owned(),
    })
    .to_line()
}

/// Handles an event with this time left of the invocation, or a sweep. Returns the decisions with their messages, and
/// the calls that change something.
async fn handle(given: &Given, event: Option<Duration>) -> (String, String) {
    let done = Arc::new(Mutex::new(Vec::new()));
    let context = given.context(&done);
    let handled = if let Some(remaining) = event {
        let action = serde_json::json!({"AutoScalingGroupName": "dtr", "LifecycleHookName": TERMINATE_HOOK,
                "EC2InstanceId": INSTANCE});
        let action = serde_json::from_value(action).unwrap();
        let deadline = deadline(remaining);
        vec![on_event(&context, &action, deadline).await.unwrap()]
    } else {
        let now = OffsetDateTime::now_utc();
        let answer = sweep::on_sweep(&context, now).await.unwrap();
        let Answer::Sweep {
            handled,
            failures: 0,
        } = answer
        else {
            panic!("{answer:?}")
        };
        handled
    };
    let described = handled.iter().map(|it| {
        let message = it.message.as_deref().unwrap_or_default();
        format!("{} {message}", it.decision)
    });
    let described: Vec<String> = described.collect();
    let done = done.lock().unwrap().join("; ");
    (described.join("; "), done)
}

/// Returns the deadline of an invocation with this time left.
fn deadline(remaining: Duration) -> Deadline {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let deadline = since_1970.unwrap() + remaining;
    Deadline::at(u64::try_from(deadline.as_millis()).unwrap())
}

const AMPLE: Duration = Duration::from_mins(10);

fn write(done: &Arc<Mutex<Vec<String>>>, entry: &str) {
    done.lock().unwrap().push(entry.to_owned());
}

impl Given {
    fn context(&self, done: &Arc<Mutex<Vec<String>>>) -> Context {
        let states = self.states;
        let mut calls = 0;
        let state = Mutex::new(move || {
            calls += 1;
            states[(calls - 1).min(states.len() - 1)]
        });
        let instances = {
            use aws_sdk_autoscaling::Client;
            mock!(Client::describe_auto_scaling_instances).then_compute_output(move |_| {
                let details = AutoScalingInstanceDetails::builder()
                    .instance_id(INSTANCE)
                    .auto_scaling_group_name("dtr")
                    .lifecycle_state((state.lock().unwrap())());
                DescribeAutoScalingInstancesOutput::builder()
                    .auto_scaling_instances(details.build())
                    .build()
            })
        };
        let groups = group(states.first().map(|state| (INSTANCE, *state)));
        let complete = complete(self.answered, done);
        let ssm = self.ssm(done);
        let ssm: Vec<&aws_smithy_mocks::Rule> = ssm.iter().collect();
        context_with_groups(&Bucket::default(), &ssm, &[&instances, &groups, &complete])
    }

    fn ssm(&self, done: &Arc<Mutex<Vec<String>>>) -> Vec<aws_smithy_mocks::Rule> {
        use aws_sdk_ssm::Client;
        let registered = usize::from(self.registered);
        let ping = mock!(Client::describe_instance_information).then_output(move || {
            let information = InstanceInformation::builder()
                .instance_id(INSTANCE)
                .ping_status(PingStatus::Online)
                .build();
            DescribeInstanceInformationOutput::builder()
                .set_instance_information_list(Some(vec![information; registered]))
                .build()
        });
        let sent_before = self.sent_before.clone();
        let commands = mock!(Client::list_commands).then_output(move || {
            let command = sent_before.as_ref().map(|(age, status, _)| {
                let sent = OffsetDateTime::now_utc() - Duration::from_secs(u64::from(*age));
                let command = BackupCommand {
                    operation_id: Operation::FinalBackup(instance()),
                    backup_id: BackupId::at(sent),
                    purpose: Purpose::Final,
                };
                Command::builder()
                    .command_id(COMMAND)
                    .instance_ids(INSTANCE)
                    .requested_date_time(DateTime::from_secs(sent.unix_timestamp()))
                    .set_parameters(Some(
                        command.parameters(&"0".repeat(64).parse().unwrap(), 900),
                    ))
                    .status((*status).into())
                    .build()
            });
            ListCommandsOutput::builder()
                .set_commands(Some(command.into_iter().collect()))
                .build()
        });
        let (_, status, output) = self
            .sent_before
            .clone()
            .unwrap_or((0, "Pending", String::new()));
        let invocations = invocations(INSTANCE, status);
        let invocation = mock!(Client::get_command_invocation).then_output(move || {
            GetCommandInvocationOutput::builder()
                .status(status.into())
                .standard_output_content(&output)
                .build()
        });
        let journal = Arc::clone(done);
        let send = mock!(Client::send_command).then_compute_output(move |_| {
            write(&journal, "send");
            let command = Command::builder().command_id(COMMAND).build();
            SendCommandOutput::builder().command(command).build()
        });
        let journal = Arc::clone(done);
        let cancel = mock!(Client::cancel_command).then_compute_output(move |_| {
            write(&journal, "cancel");
            CancelCommandOutput::builder().build()
        });
        vec![ping, commands, invocations, invocation, send, cancel]
    }
}

fn complete(answered: bool, done: &Arc<Mutex<Vec<String>>>) -> aws_smithy_mocks::Rule {
    use aws_sdk_autoscaling::Client;
    if answered {
        let error = "<ErrorResponse><Error><Code>ValidationError</Code><Message>No active Lifecycle Action found \
            with instance ID i-04d1c8f7a2b3e6905</Message></Error></ErrorResponse>";
        return mock!(Client::complete_lifecycle_action)
            .sequence()
            .http_status(400, Some(error.to_owned()))
            .repeatedly()
            .build();
    }
    let journal = Arc::clone(done);
    mock!(Client::complete_lifecycle_action).then_compute_output(move |request| {
        write(&journal, request.lifecycle_action_result().unwrap());
        CompleteLifecycleActionOutput::builder().build()
    })
}

#[tokio::test]
async fn the_sweep_sends_again_to_a_busy_node() {
    let given = Given {
        sent_before: Some((120, "Failed", busy())),
        ..waiting()
    };
    let (decision, done) = handle(&given, None).await;
    assert_eq!(done, "send");
    assert!(decision.ends_with("is on its way"), "{decision}");
}

#[tokio::test(start_paused = true)]
async fn a_terminate_event_for_a_serving_node_neither_stops_nor_answers_anything() {
    let given = Given {
        states: &["InService"],
        ..waiting()
    };
    let (decision, done) = handle(&given, Some(AMPLE)).await;
    assert_eq!(done, "");
    assert!(
        decision.ends_with("does not wait in the terminate hook"),
        "{decision}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_that_arrives_before_the_groups_state_is_not_lost() {
    let given = Given {
        states: &["InService", "InService", "Terminating:Wait"],
        registered: false,
        ..waiting()
    };
    let (decision, done) = handle(&given, Some(AMPLE)).await;
    assert_eq!(done, "CONTINUE");
    assert!(decision.starts_with("give-up-final-backup"), "{decision}");
}

#[tokio::test]
async fn an_invocation_after_the_answer_records_no_failure() {
    let given = Given {
        registered: false,
        answered: true,
        ..waiting()
    };
    let (decision, _) = handle(&given, Some(AMPLE)).await;
    assert_eq!(decision, "hook-already-answered ");
}

#[tokio::test]
async fn an_invocation_with_little_time_leaves_the_command_to_the_sweep() {
    let given = Given {
        sent_before: Some((20, "Pending", String::new())),
        ..waiting()
    };
    let (decision, done) = handle(&given, Some(Duration::from_secs(3))).await;
    assert_eq!(done, "");
    assert!(decision.ends_with("is on its way"), "{decision}");
    let overdue = Given {
        sent_before: Some((60, "Pending", String::new())),
        ..waiting()
    };
    assert_eq!(handle(&overdue, None).await.1, "cancel; CONTINUE");
}
