//! What is done to an instance in its terminate hook, and to its node, against an AWS that writes it down.

use std::sync::{Arc, Mutex};

use aws_sdk_autoscaling::operation::complete_lifecycle_action::CompleteLifecycleActionOutput;
use aws_sdk_autoscaling::operation::describe_auto_scaling_groups::DescribeAutoScalingGroupsOutput;
use aws_sdk_autoscaling::operation::describe_auto_scaling_instances::DescribeAutoScalingInstancesOutput;
use aws_sdk_autoscaling::operation::describe_scaling_activities::DescribeScalingActivitiesOutput;
use aws_sdk_autoscaling::types::{
    Activity, AutoScalingGroup, AutoScalingInstanceDetails, Instance, TagDescription,
};
use aws_sdk_ssm::operation::cancel_command::CancelCommandOutput;
use aws_sdk_ssm::operation::describe_instance_information::DescribeInstanceInformationOutput;
use aws_sdk_ssm::operation::get_command_invocation::GetCommandInvocationOutput;
use aws_sdk_ssm::operation::list_commands::ListCommandsOutput;
use aws_sdk_ssm::operation::send_command::SendCommandOutput;
use aws_sdk_ssm::primitives::DateTime;
use aws_sdk_ssm::types::{Command, InstanceInformation, PingStatus};
use aws_smithy_mocks::mock;
use shared::report::{BackupReport, ExitCode, FailureReport, Report};

use super::*;
use crate::catch_up;
use crate::outcome::Outcome;
use crate::testing::{Bucket, function_of_groups, invocations, put};

const INSTANCE: &str = "i-04d1c8f7a2b3e6905";
const COMMAND: &str = "6d2f0f0e-5d0b-4f0a-9b57-0d5b1a3f2c11";

/// What AWS says when an event or a sweep comes.
#[derive(Clone)]
struct Given {
    /// What the instance's state is at each look; the last one stays.
    states: &'static [&'static str],
    /// Whether its agent is registered.
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
        operation_id: decide::final_operation(&instance()).unwrap(),
        exit_code: ExitCode::Busy,
        message: "a scheduled backup is running".to_owned(),
    })
    .to_line()
}

/// Handles an event with so much left of the invocation, or a sweep; says what came of it and what was done.
async fn came(given: &Given, event: Option<Duration>) -> (String, String) {
    let done = Arc::new(Mutex::new(Vec::new()));
    let function = given.function(&done);
    let decision = if let Some(remaining) = event {
        let action = serde_json::json!({"AutoScalingGroupName": "dtr", "LifecycleHookName": TERMINATE_HOOK,
                "EC2InstanceId": INSTANCE});
        let action = serde_json::from_value(action).unwrap();
        let caught_up = on_event(&function, &action, Some(remaining)).await.unwrap();
        caught_up.decision
    } else {
        let now = OffsetDateTime::now_utc();
        let outcome = catch_up::on_sweep(&function, now).await.unwrap();
        let Outcome::Sweep {
            caught_up,
            failures: 0,
        } = outcome
        else {
            panic!("{outcome:?}")
        };
        let decisions: Vec<String> = caught_up.into_iter().map(|it| it.decision).collect();
        decisions.join("; ")
    };
    let done = done.lock().unwrap().join("; ");
    (decision, done)
}

const AMPLE: Duration = Duration::from_mins(10);

fn write(done: &Arc<Mutex<Vec<String>>>, entry: &str) {
    done.lock().unwrap().push(entry.to_owned());
}

impl Given {
    fn function(&self, done: &Arc<Mutex<Vec<String>>>) -> Function {
        let states = self.states;
        let mut looks = 0;
        let looks = Mutex::new(move || {
            looks += 1;
            states[(looks - 1).min(states.len() - 1)]
        });
        let instances = {
            use aws_sdk_autoscaling::Client;
            mock!(Client::describe_auto_scaling_instances).then_compute_output(move |_| {
                let details = AutoScalingInstanceDetails::builder()
                    .instance_id(INSTANCE)
                    .auto_scaling_group_name("dtr")
                    .lifecycle_state((looks.lock().unwrap())());
                DescribeAutoScalingInstancesOutput::builder()
                    .auto_scaling_instances(details.build())
                    .build()
            })
        };
        let groups = groups(states);
        let complete = complete(self.answered, done);
        let ssm = self.ssm(done);
        let ssm: Vec<&aws_smithy_mocks::Rule> = ssm.iter().collect();
        function_of_groups(&Bucket::default(), &ssm, &[&instances, &groups, &complete])
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
                    operation_id: decide::final_operation(&instance()).unwrap(),
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

fn groups(states: &'static [&'static str]) -> aws_smithy_mocks::Rule {
    use aws_sdk_autoscaling::Client;
    mock!(Client::describe_auto_scaling_groups).then_output(move || {
        let tag = TagDescription::builder()
            .key("rekindle:application")
            .value("dtr");
        let member = states.first().map(|state| {
            Instance::builder()
                .instance_id(INSTANCE)
                .lifecycle_state((*state).into())
                .build()
        });
        let group = AutoScalingGroup::builder()
            .auto_scaling_group_name("dtr")
            .tags(tag.build())
            .set_instances(Some(member.into_iter().collect()));
        DescribeAutoScalingGroupsOutput::builder()
            .auto_scaling_groups(group.build())
            .build()
    })
}

fn complete(answered: bool, done: &Arc<Mutex<Vec<String>>>) -> aws_smithy_mocks::Rule {
    use aws_sdk_autoscaling::Client;
    if answered {
        let words = "<ErrorResponse><Error><Code>ValidationError</Code><Message>No active Lifecycle Action found \
            with instance ID i-04d1c8f7a2b3e6905</Message></Error></ErrorResponse>";
        return mock!(Client::complete_lifecycle_action)
            .sequence()
            .http_status(400, Some(words.to_owned()))
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
async fn a_busy_node_is_asked_again_by_the_sweep() {
    let given = Given {
        sent_before: Some((120, "Failed", busy())),
        ..waiting()
    };
    let (decision, done) = came(&given, None).await;
    assert_eq!(done, "send");
    assert!(decision.ends_with("is on its way"), "{decision}");
}

#[tokio::test(start_paused = true)]
async fn a_terminate_event_for_a_serving_node_neither_stops_nor_answers_anything() {
    let given = Given {
        states: &["InService"],
        ..waiting()
    };
    let (decision, done) = came(&given, Some(AMPLE)).await;
    assert_eq!(done, "");
    assert_eq!(decision, "it does not wait in the terminate hook");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_faster_than_the_group_is_not_lost() {
    let given = Given {
        states: &["InService", "InService", "Terminating:Wait"],
        registered: false,
        ..waiting()
    };
    let (decision, done) = came(&given, Some(AMPLE)).await;
    assert_eq!(done, "CONTINUE");
    assert!(
        decision.contains("ends without a final backup"),
        "{decision}"
    );
}

#[tokio::test]
async fn whoever_comes_after_the_answer_reports_no_failure() {
    let given = Given {
        registered: false,
        answered: true,
        ..waiting()
    };
    let (decision, _) = came(&given, Some(AMPLE)).await;
    assert_eq!(decision, "the hook waits no longer");
}

#[tokio::test]
async fn an_invocation_that_is_nearly_over_leaves_the_command_to_the_sweep() {
    let given = Given {
        sent_before: Some((20, "Pending", String::new())),
        ..waiting()
    };
    let (decision, done) = came(&given, Some(Duration::from_secs(3))).await;
    assert_eq!(done, "");
    assert!(decision.ends_with("is on its way"), "{decision}");
    let overdue = Given {
        sent_before: Some((60, "Pending", String::new())),
        ..waiting()
    };
    assert_eq!(came(&overdue, None).await.1, "cancel; CONTINUE");
}

fn activities(instance: &'static str) -> aws_smithy_mocks::Rule {
    use aws_sdk_autoscaling::Client;
    mock!(Client::describe_scaling_activities).then_output(move || {
        let launch = Activity::builder()
            .description(format!("Launching a new EC2 instance: {instance}"))
            .start_time(DateTime::from_secs(1_795_400_000));
        DescribeScalingActivitiesOutput::builder()
            .activities(launch.build())
            .build()
    })
}

/// A scheduled backup that ended so many seconds ago on an instance that has left its group since.
async fn settled(age: u64, committed: bool, launched: &'static str) -> Result<CaughtUp> {
    use aws_sdk_autoscaling::Client as AutoScaling;
    use aws_sdk_ssm::Client;
    let sent = OffsetDateTime::now_utc() - Duration::from_secs(age);
    let backup_id = BackupId::at(sent);
    let operation_id: shared::id::OperationId = backup_id.as_str().parse().unwrap();
    let report = Report::Backup(BackupReport {
        operation_id: operation_id.clone(),
        backup_id: backup_id.clone(),
        run_id: "0a1b2c3d".parse().unwrap(),
        index_sha256: "ab".repeat(32).parse().unwrap(),
        index_size: 1,
        databases: 1,
        tables: 1,
        rows: 1,
        bytes: 1,
        seconds: 1.0,
        peak_memory_kib: 1,
    });
    let bucket = Bucket::default();
    if committed {
        let key = shared::layout::manifest(&"dtr".parse().unwrap(), &backup_id);
        put(&bucket, &key, b"{}");
    }
    let command = BackupCommand {
        operation_id,
        backup_id,
        purpose: Purpose::Scheduled,
    };
    let commands = mock!(Client::list_commands).then_output(move || {
        let command = Command::builder()
            .command_id(COMMAND)
            .instance_ids(INSTANCE)
            .requested_date_time(DateTime::from_secs(sent.unix_timestamp()))
            .set_parameters(Some(
                command.parameters(&"0".repeat(64).parse().unwrap(), 780),
            ))
            .status("Success".into());
        ListCommandsOutput::builder()
            .commands(command.build())
            .build()
    });
    let invocation = mock!(Client::get_command_invocation).then_output(move || {
        GetCommandInvocationOutput::builder()
            .status("Success".into())
            .standard_output_content(report.to_line())
            .build()
    });
    let nowhere = mock!(AutoScaling::describe_auto_scaling_instances)
        .then_output(|| DescribeAutoScalingInstancesOutput::builder().build());
    let rules = [&nowhere, &groups(&[]), &activities(launched)];
    let function = function_of_groups(&bucket, &[&commands, &invocation], &rules);
    settle::on_event(&function, &COMMAND.parse().unwrap(), &instance()).await
}

#[tokio::test]
async fn the_backup_of_an_instance_that_has_left_belongs_to_the_group_that_launched_it() {
    // Its index is not there: what matters here is under whose name it was looked for.
    let done = settled(60, false, INSTANCE).await.unwrap();
    assert_eq!(done.application.unwrap().as_str(), "dtr");
    assert!(
        done.decision.contains("backups/dtr/") && done.decision.contains("index.json"),
        "{}",
        done.decision
    );
    let stranger = settled(60, false, "i-0fedcba9876543210").await.unwrap_err();
    assert!(
        stranger.chain().contains("restored by hand"),
        "{stranger:?}"
    );
}

#[tokio::test]
async fn a_late_event_of_a_committed_backup_is_no_failure() {
    let late = u64::from(budget::COMMIT_WINDOW) + 60;
    let done = settled(late, true, INSTANCE).await.unwrap();
    assert_eq!(done.decision, "committed before");
    let done = settled(late, false, INSTANCE).await.unwrap();
    assert!(
        done.decision
            .ends_with("ended too long ago to be committed"),
        "{}",
        done.decision
    );
}
