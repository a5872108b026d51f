//! Groups on many pages, launches, and answers to hooks that were answered before.

use aws_sdk_autoscaling::error::ErrorMetadata;
use aws_sdk_autoscaling::operation::complete_lifecycle_action::{
    CompleteLifecycleActionError, CompleteLifecycleActionOutput,
};
use aws_sdk_autoscaling::operation::describe_auto_scaling_groups::DescribeAutoScalingGroupsOutput;
use aws_sdk_autoscaling::operation::describe_scaling_activities::DescribeScalingActivitiesOutput;
use aws_sdk_autoscaling::operation::resume_processes::ResumeProcessesOutput;
use aws_sdk_autoscaling::operation::suspend_processes::SuspendProcessesOutput;
use aws_sdk_autoscaling::primitives::DateTime;
use aws_sdk_autoscaling::types::{
    Activity, InstanceLifecyclePolicy, RetentionTriggers, ScalingActivityStatusCode,
    SuspendedProcess, TagDescription,
};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

use super::*;

fn instance() -> InstanceId {
    "i-04d1c8f7a2b3e6905".parse().unwrap()
}

fn described(name: &str, application: &str) -> AutoScalingGroup {
    let member = |id: &str, state: &str| {
        Instance::builder()
            .instance_id(id)
            .lifecycle_state(state.into())
            .health_status("Healthy")
            .availability_zone("eu-central-1a")
            .protected_from_scale_in(false)
            .build()
    };
    AutoScalingGroup::builder()
        .auto_scaling_group_name(name)
        .min_size(1)
        .max_size(1)
        .desired_capacity(1)
        .default_cooldown(300)
        .health_check_type("EC2")
        .created_time(DateTime::from_secs(0))
        .availability_zones("eu-central-1a")
        .tags(TagDescription::builder().key("Name").value("x").build())
        .tags(
            TagDescription::builder()
                .key(APPLICATION_TAG)
                .value(application)
                .build(),
        )
        .instances(member("i-04d1c8f7a2b3e6905", "InService"))
        .instances(member("i-0b7e4c2a91d3f5068", "Terminating:SomethingNew"))
        .instances(member("mi-not-an-instance", "InService"))
        .build()
}

#[tokio::test]
async fn protected_groups_are_found_on_every_page() {
    let first = mock!(Client::describe_auto_scaling_groups)
        .match_requests(|request| {
            let filter = &request.filters()[0];
            request.next_token().is_none()
                && request.max_records() == Some(100)
                && (filter.name(), filter.values())
                    == (Some("tag-key"), &[APPLICATION_TAG.to_owned()])
        })
        .then_output(|| {
            DescribeAutoScalingGroupsOutput::builder()
                .auto_scaling_groups(described("one", "dtr"))
                .next_token("more")
                .build()
        });
    let second = mock!(Client::describe_auto_scaling_groups)
        .match_requests(|request| request.next_token() == Some("more"))
        .then_output(|| {
            DescribeAutoScalingGroupsOutput::builder()
                .auto_scaling_groups(described("two", "Not An Application"))
                .build()
        });
    let client = mock_client!(aws_sdk_autoscaling, RuleMode::Sequential, [&first, &second]);
    let groups = protected_groups(&client).await.unwrap();
    assert_eq!(
        groups
            .iter()
            .map(|group| group.name.as_str())
            .collect::<Vec<_>>(),
        ["one", "two"]
    );
    assert_eq!(groups[0].application().unwrap().unwrap().as_str(), "dtr");
    assert_eq!(groups[0].members.len(), 2, "only EC2 instances are members");
    assert_eq!(groups[0].members[0].state, LifecycleState::InService);
    let unknown = LifecycleState::Unknown("Terminating:SomethingNew".to_owned());
    assert_eq!(groups[0].members[1].state, unknown);
    let error = groups[1].application().unwrap_err().chain();
    assert!(
        error.contains(r#""two""#) && error.contains("Not An Application"),
        "{error}"
    );
}

#[test]
fn a_group_keeps_an_abandoned_instance_only_if_its_policy_is_retain() {
    let triggers = |action: &str| {
        RetentionTriggers::builder()
            .terminate_hook_abandon(action.into())
            .build()
    };
    let policy = |action| {
        InstanceLifecyclePolicy::builder()
            .retention_triggers(triggers(action))
            .build()
    };
    let group = |action| {
        let mut group = described("one", "dtr");
        group.instance_lifecycle_policy = Some(policy(action));
        read_group(&group).retains_on_abandon
    };
    assert!(group("retain"));
    assert!(!group("terminate"));
    assert!(!read_group(&described("one", "dtr")).retains_on_abandon);
}

#[test]
fn only_the_suspended_process_launch_counts() {
    let suspended = |process: &str| {
        let mut group = described("one", "dtr");
        let process = SuspendedProcess::builder().process_name(process).build();
        group.suspended_processes = Some(vec![process]);
        read_group(&group).launches_suspended
    };
    assert!(suspended("Launch"));
    assert!(!suspended("AZRebalance"));
    assert!(!read_group(&described("one", "dtr")).launches_suspended);
}

fn refusal(code: &'static str, message: &'static str) -> Rule {
    mock!(Client::complete_lifecycle_action).then_error(move || {
        CompleteLifecycleActionError::generic(
            ErrorMetadata::builder().code(code).message(message).build(),
        )
    })
}

#[tokio::test]
async fn a_second_answer_to_a_hook_is_no_error_and_other_refusals_are() {
    let answer = async |rule: &Rule| {
        let client = mock_client!(aws_sdk_autoscaling, RuleMode::MatchAny, [rule]);
        complete(
            &client,
            "dtr",
            TERMINATE_HOOK,
            &instance(),
            LifecycleResult::Abandon,
        )
        .await
    };
    let done = mock!(Client::complete_lifecycle_action)
        .match_requests(|request| {
            request.lifecycle_action_result() == Some("ABANDON")
                && request.lifecycle_hook_name() == Some("rekindle-terminate")
                && request.instance_id() == Some("i-04d1c8f7a2b3e6905")
                && request.lifecycle_action_token().is_none()
        })
        .then_output(|| CompleteLifecycleActionOutput::builder().build());
    assert_eq!(answer(&done).await.unwrap(), Completion::Done);

    let resolved = refusal(
        "ValidationError",
        "No active Lifecycle Action found with instance ID i-04d1c8f7a2b3e6905",
    );
    assert_eq!(
        answer(&resolved).await.unwrap(),
        Completion::AlreadyResolved
    );

    let mistaken = refusal("ValidationError", "1 validation error detected");
    assert_eq!(
        answer(&mistaken).await.unwrap_err().aws_code(),
        Some("ValidationError")
    );
    let denied = refusal("AccessDenied", "No active Lifecycle Action found");
    assert!(!answer(&denied).await.unwrap_err().retryable());
}

#[tokio::test]
async fn the_newest_launch_of_an_instance_is_found() {
    let activity = |description: &str, seconds: i64| {
        Activity::builder()
            .activity_id("a")
            .auto_scaling_group_name("dtr")
            .description(description)
            .cause("c")
            .start_time(DateTime::from_secs(seconds))
            .status_code(ScalingActivityStatusCode::InProgress)
            .build()
    };
    let rule = mock!(Client::describe_scaling_activities).then_output(move || {
        DescribeScalingActivitiesOutput::builder()
            .activities(activity(
                "Terminating EC2 instance: i-04d1c8f7a2b3e6905",
                400,
            ))
            .activities(activity(
                "Launching a new EC2 instance: i-0b7e4c2a91d3f5068",
                300,
            ))
            .activities(activity(
                "Launching a new EC2 instance from warm pool: i-04d1c8f7a2b3e6905",
                200,
            ))
            .activities(activity(
                "Launching a new EC2 instance: i-04d1c8f7a2b3e6905",
                100,
            ))
            .build()
    });
    let client = mock_client!(aws_sdk_autoscaling, RuleMode::MatchAny, [&rule]);
    let launched = launched_at(&client, "dtr", &instance())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(launched.unix_timestamp(), 200);
    let other = "i-00000000".parse().unwrap();
    assert_eq!(launched_at(&client, "dtr", &other).await.unwrap(), None);
}

#[tokio::test]
async fn launches_are_read_back_to_the_last_successful_one() {
    use launches::{Launch, LaunchEnd};
    let activity = |description: &str, status: &str, seconds: i64| {
        Activity::builder()
            .activity_id("a")
            .auto_scaling_group_name("dtr")
            .cause("c")
            .description(description)
            .start_time(DateTime::from_secs(seconds))
            .status_code(status.into())
            .build()
    };
    let abandoned = "Launching a new EC2 instance: i-04d1c8f7a2b3e6905.  Status Reason: Instance failed to complete \
        user's Lifecycle Action: Lifecycle Action with token 0f3c was abandoned";
    let page = move |more: bool| {
        let page = DescribeScalingActivitiesOutput::builder();
        if more {
            return page
                .activities(activity(
                    "Launching a new EC2 instance: i-0b7e4c2a91d3f5068",
                    "MidLifecycleAction",
                    600,
                ))
                .activities(activity(
                    "Terminating EC2 instance: i-04d1c8f7a2b3e6905",
                    "Successful",
                    500,
                ))
                .activities(activity(abandoned, "Cancelled", 400))
                .activities(activity(
                    "Launching a new EC2 instance.  Status Reason: no capacity",
                    "Failed",
                    300,
                ))
                .activities(activity(
                    "Launching a new EC2 instance into warm pool: i-0123abcd",
                    "Successful",
                    200,
                ))
                .next_token("more")
                .build();
        }
        page.activities(activity(
            "Launching a new EC2 instance from warm pool: i-0123abcd",
            "Successful",
            100,
        ))
        .next_token("even more")
        .build()
    };
    let first = mock!(Client::describe_scaling_activities)
        .match_requests(|request| request.next_token().is_none())
        .then_output(move || page(true));
    let second = mock!(Client::describe_scaling_activities)
        .match_requests(|request| request.next_token() == Some("more"))
        .then_output(move || page(false));
    let client = mock_client!(aws_sdk_autoscaling, RuleMode::Sequential, [&first, &second]);
    let launch = |instance: Option<&str>, seconds, end| Launch {
        instance_id: instance.map(|id| id.parse().unwrap()),
        started_at: OffsetDateTime::from_unix_timestamp(seconds).unwrap(),
        end,
    };
    let expected = [
        launch(Some("i-0b7e4c2a91d3f5068"), 600, LaunchEnd::NotYet),
        launch(Some("i-04d1c8f7a2b3e6905"), 400, LaunchEnd::Failed),
        launch(None, 300, LaunchEnd::Failed),
        launch(Some("i-0123abcd"), 100, LaunchEnd::Successful),
    ];
    assert_eq!(launches::recent(&client, "dtr").await.unwrap(), expected);
}

#[tokio::test]
async fn only_the_process_launch_is_suspended_and_resumed() {
    let launch = ["Launch".to_owned()];
    let (to_suspend, to_resume) = (launch.clone(), launch);
    let suspended = mock!(Client::suspend_processes)
        .match_requests(move |request| {
            request.auto_scaling_group_name() == Some("dtr")
                && request.scaling_processes() == to_suspend
        })
        .then_output(|| SuspendProcessesOutput::builder().build());
    let resumed = mock!(Client::resume_processes)
        .match_requests(move |request| {
            request.auto_scaling_group_name() == Some("dtr")
                && request.scaling_processes() == to_resume
        })
        .then_output(|| ResumeProcessesOutput::builder().build());
    let rules = [&suspended, &resumed];
    let client = mock_client!(aws_sdk_autoscaling, RuleMode::MatchAny, rules);
    launches::suspend(&client, "dtr").await.unwrap();
    launches::resume(&client, "dtr").await.unwrap();
}

#[test]
fn lifecycle_states_are_read_back_from_their_names() {
    for state in LifecycleState::ALL {
        assert_eq!(&LifecycleState::from(state.as_str()), state);
        let terminating = matches!(
            state.as_str(),
            "Terminating" | "Terminating:Wait" | "Terminating:Proceed"
        );
        assert_eq!(state.is_terminating(), terminating, "{state}");
    }
}
