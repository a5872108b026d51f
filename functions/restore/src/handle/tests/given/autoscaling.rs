//! Auto Scaling: two groups, their launches, the launch hook, and the process `Launch`.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::operation::complete_lifecycle_action::CompleteLifecycleActionOutput;
use aws_sdk_autoscaling::operation::describe_auto_scaling_groups::DescribeAutoScalingGroupsOutput;
use aws_sdk_autoscaling::operation::describe_auto_scaling_instances::DescribeAutoScalingInstancesOutput;
use aws_sdk_autoscaling::operation::describe_scaling_activities::DescribeScalingActivitiesOutput;
use aws_sdk_autoscaling::operation::record_lifecycle_action_heartbeat::RecordLifecycleActionHeartbeatOutput;
use aws_sdk_autoscaling::operation::resume_processes::ResumeProcessesOutput;
use aws_sdk_autoscaling::operation::suspend_processes::SuspendProcessesOutput;
use aws_sdk_autoscaling::primitives::DateTime;
use aws_sdk_autoscaling::types::{
    Activity, AutoScalingGroup, AutoScalingInstanceDetails, Instance, SuspendedProcess,
    TagDescription,
};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
use serde_json::json;
use shared::aws::autoscaling::LAUNCH_HOOK;
use time::OffsetDateTime;

use super::{Given, INSTANCE, Journal, OLD_INSTANCE, Record, breakers, write};

/// Returns the client of this Auto Scaling.
pub(super) fn client(given: &Given, journal: &Journal, record: &Record) -> Client {
    let (instances, groups, activities) = (instances(given), groups(given), activities(given));
    let (complete, heartbeat) = (complete(given, journal), heartbeat(journal));
    let (suspend, resume) = (suspend(given, journal, record), resume(journal));
    let rules = [
        &instances,
        &groups,
        &activities,
        &complete,
        &heartbeat,
        &suspend,
        &resume,
    ];
    mock_client!(aws_sdk_autoscaling, RuleMode::MatchAny, rules)
}

fn instances(given: &Given) -> Rule {
    let state = given.state;
    mock!(Client::describe_auto_scaling_instances).then_output(move || {
        let details = AutoScalingInstanceDetails::builder()
            .instance_id(INSTANCE)
            .auto_scaling_group_name("dtr")
            .lifecycle_state(state);
        DescribeAutoScalingInstancesOutput::builder()
            .auto_scaling_instances(details.build())
            .build()
    })
}

fn groups(given: &Given) -> Rule {
    let known = given.clone();
    mock!(Client::describe_auto_scaling_groups).then_output(move || {
        let mut members = vec![(INSTANCE, known.state)];
        members.extend(known.predecessor.map(|state| (OLD_INSTANCE, state)));
        let other = [(OLD_INSTANCE, "InService")];
        let others = if known.other_group { &other[..] } else { &[] };
        DescribeAutoScalingGroupsOutput::builder()
            .auto_scaling_groups(group(
                "dtr",
                known.tag,
                known.health,
                &members,
                known.suspended,
            ))
            .auto_scaling_groups(group("dtr-copy", known.tag, known.health, others, false))
            .build()
    })
}

fn group(
    name: &str,
    tag: Option<&str>,
    health: &str,
    members: &[(&str, &str)],
    suspended: bool,
) -> AutoScalingGroup {
    let tag = tag.map(|value| {
        TagDescription::builder()
            .key("rekindle:application")
            .value(value)
            .build()
    });
    let members = members.iter().map(|(id, state)| {
        Instance::builder()
            .instance_id(*id)
            .lifecycle_state((*state).into())
            .health_status(health)
            .build()
    });
    let launch = SuspendedProcess::builder().process_name("Launch").build();
    AutoScalingGroup::builder()
        .auto_scaling_group_name(name)
        .set_suspended_processes(Some(vec![launch; usize::from(suspended)]))
        .set_tags(tag.map(|tag| vec![tag]))
        .set_instances(Some(members.collect()))
        .build()
}

fn activities(given: &Given) -> Rule {
    let (failed_before, minutes) = (given.failed_before, given.minutes);
    mock!(Client::describe_scaling_activities).then_output(move || {
        let began = OffsetDateTime::now_utc() - Duration::from_mins(minutes);
        let launch = |instance: &str, status: &str, earlier: u8| {
            let began = began - Duration::from_mins(earlier.into());
            Activity::builder()
                .description(format!("Launching a new EC2 instance: {instance}"))
                .start_time(DateTime::from_secs(began.unix_timestamp()))
                .status_code(status.into())
                .build()
        };
        let failed =
            (1..=failed_before).map(|back| launch(&format!("i-{back:08x}"), "Cancelled", back));
        let this = std::iter::once(launch(INSTANCE, "MidLifecycleAction", 0));
        DescribeScalingActivitiesOutput::builder()
            .set_activities(Some(this.chain(failed).collect()))
            .build()
    })
}

fn complete(given: &Given, journal: &Journal) -> Rule {
    if given.answered_before {
        let body = "<ErrorResponse><Error><Code>ValidationError</Code><Message>No active Lifecycle Action found \
            with instance ID i-0123456789abcdef0</Message></Error></ErrorResponse>";
        mock!(Client::complete_lifecycle_action)
            .sequence()
            .http_status(400, Some(body.to_owned()))
            .repeatedly()
            .build()
    } else {
        let journal = Arc::clone(journal);
        mock!(Client::complete_lifecycle_action).then_compute_output(move |request| {
            assert_eq!(request.lifecycle_hook_name(), Some(LAUNCH_HOOK));
            assert_eq!(request.auto_scaling_group_name(), Some("dtr"));
            write(&journal, request.lifecycle_action_result().unwrap());
            CompleteLifecycleActionOutput::builder().build()
        })
    }
}

fn heartbeat(journal: &Journal) -> Rule {
    let journal = Arc::clone(journal);
    mock!(Client::record_lifecycle_action_heartbeat).then_output(move || {
        write(&journal, "heartbeat");
        RecordLifecycleActionHeartbeatOutput::builder().build()
    })
}

fn suspend(given: &Given, journal: &Journal, record: &Record) -> Rule {
    if let Some(code) = given.refuses_to_suspend {
        let body = format!("<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>");
        mock!(Client::suspend_processes)
            .sequence()
            .http_status(400, Some(body))
            .repeatedly()
            .build()
    } else {
        let (journal, record) = (Arc::clone(journal), Arc::clone(record));
        let closed = given
            .closed_meanwhile
            .then(|| breakers(&json!({"state": "closed", "closed_at": "2026-11-23T02:15:00Z"})));
        mock!(Client::suspend_processes).then_compute_output(move |request| {
            if let Some(closed) = &closed {
                *record.lock().unwrap() = Some(closed.clone());
            }
            assert_eq!(request.auto_scaling_group_name(), Some("dtr"));
            write(
                &journal,
                format!("suspend {}", request.scaling_processes().join(" ")),
            );
            SuspendProcessesOutput::builder().build()
        })
    }
}

fn resume(journal: &Journal) -> Rule {
    let journal = Arc::clone(journal);
    mock!(Client::resume_processes).then_compute_output(move |request| {
        assert_eq!(request.auto_scaling_group_name(), Some("dtr"));
        write(
            &journal,
            format!("resume {}", request.scaling_processes().join(" ")),
        );
        ResumeProcessesOutput::builder().build()
    })
}
