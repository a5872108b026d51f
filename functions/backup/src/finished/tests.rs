//! The event of a finished command: after its instance has left the group, and after the commit window.

use aws_sdk_autoscaling::operation::describe_auto_scaling_instances::DescribeAutoScalingInstancesOutput;
use aws_sdk_autoscaling::operation::describe_scaling_activities::DescribeScalingActivitiesOutput;
use aws_sdk_autoscaling::types::Activity;
use aws_sdk_ssm::operation::get_command_invocation::GetCommandInvocationOutput;
use aws_sdk_ssm::operation::list_commands::ListCommandsOutput;
use aws_sdk_ssm::primitives::DateTime;
use aws_sdk_ssm::types::Command;
use aws_smithy_mocks::mock;
use shared::budget;
use shared::id::BackupId;
use shared::operation::Operation;
use shared::report::Report;

use super::*;
use crate::testing::{Bucket, backup_report, context_with_groups, group, put};

const INSTANCE: &str = "i-04d1c8f7a2b3e6905";
const COMMAND: &str = "6d2f0f0e-5d0b-4f0a-9b57-0d5b1a3f2c11";

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

/// Handles the event of a scheduled backup that was sent `age` seconds ago to an instance that has left its group.
/// The group has recorded the launch of `launched`.
async fn handle(age: u64, committed: bool, launched: &'static str) -> Result<Handled> {
    use aws_sdk_autoscaling::Client as AutoScaling;
    use aws_sdk_ssm::Client;
    let sent = OffsetDateTime::now_utc() - Duration::from_secs(age);
    let backup_id = BackupId::at(sent);
    let operation_id = Operation::Backup(backup_id.clone());
    let report = Report::Backup(backup_report(
        &operation_id.to_string(),
        &backup_id.to_string(),
    ));
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
    let rules = [&nowhere, &group(None), &activities(launched)];
    let context = context_with_groups(&bucket, &[&commands, &invocation], &rules);
    let event = CommandStatus {
        command_id: COMMAND.parse().unwrap(),
        document_name: context.config.backup_document.clone(),
        instance_id: INSTANCE.parse().unwrap(),
        status: "Success".to_owned(),
    };
    on_event(&context, &event).await
}

#[tokio::test]
async fn the_backup_of_an_instance_that_has_left_belongs_to_the_group_that_launched_it() {
    // Its index is missing. The error shows for which application it was read.
    let done = handle(60, false, INSTANCE).await.unwrap();
    assert_eq!(done.application.unwrap().as_str(), "dtr");
    let message = done.message.unwrap();
    assert!(
        message.contains("backups/dtr/") && message.contains("index.json"),
        "{message}"
    );
    let stranger = handle(60, false, "i-0fedcba9876543210").await.unwrap_err();
    assert!(stranger.chain().contains("by hand"), "{stranger:?}");
}

#[tokio::test]
async fn a_late_event_of_a_committed_backup_is_no_failure() {
    let late = u64::from(budget::COMMIT_WINDOW) + 60;
    let done = handle(late, true, INSTANCE).await.unwrap();
    assert_eq!(done.decision, "already-committed");
    let done = handle(late, false, INSTANCE).await.unwrap();
    let message = done.message.unwrap();
    assert!(
        message.ends_with("ended too long ago to be committed"),
        "{message}"
    );
}
