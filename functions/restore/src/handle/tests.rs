//! Whole passes over one launching instance, against an AWS that writes down what is done to it.

use std::sync::{Arc, Mutex};

use aws_sdk_autoscaling::operation::complete_lifecycle_action::CompleteLifecycleActionOutput;
use aws_sdk_autoscaling::operation::describe_auto_scaling_groups::DescribeAutoScalingGroupsOutput;
use aws_sdk_autoscaling::operation::describe_auto_scaling_instances::DescribeAutoScalingInstancesOutput;
use aws_sdk_autoscaling::operation::describe_scaling_activities::DescribeScalingActivitiesOutput;
use aws_sdk_autoscaling::operation::record_lifecycle_action_heartbeat::RecordLifecycleActionHeartbeatOutput;
use aws_sdk_autoscaling::types::{
    Activity, AutoScalingGroup, AutoScalingInstanceDetails, Instance, TagDescription,
};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::operation::put_object::PutObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CommonPrefix, Object};
use aws_sdk_ssm::operation::describe_instance_information::DescribeInstanceInformationOutput;
use aws_sdk_ssm::operation::get_command_invocation::GetCommandInvocationOutput;
use aws_sdk_ssm::operation::get_parameter::GetParameterOutput;
use aws_sdk_ssm::operation::list_commands::ListCommandsOutput;
use aws_sdk_ssm::operation::send_command::SendCommandOutput;
use aws_sdk_ssm::primitives::DateTime;
use aws_sdk_ssm::types::{Command, InstanceInformation, Parameter, PingStatus};
use aws_smithy_mocks::{RuleMode, mock, mock_client};
use lambda_runtime::Context;
use serde_json::json;
use shared::layout;
use shared::report::{
    ExitCode, FailureReport, Report, RestoreOutcome, RestoreReport, SkippedBackup,
};

use super::*;

const INSTANCE: &str = "i-0123456789abcdef0";
const OLD_INSTANCE: &str = "i-0fedcba9876543210";
const COMMAND: &str = "00000000-0000-4000-8000-000000000001";
const BACKUP: &str = "20261123T021500.000Z";

/// What AWS is like when an event comes.
#[derive(Clone)]
struct Given {
    state: &'static str,
    tag: Option<&'static str>,
    predecessor: Option<&'static str>,
    /// Another group with the same tag, which has an instance.
    other_group: bool,
    registered: bool,
    /// The status and output of a restore that was sent before.
    sent_before: Option<(&'static str, String)>,
    backups: &'static [&'static str],
    listing_denied: bool,
    parameter: bool,
    refuses_command: bool,
    answered_before: bool,
}

/// A protected instance that is ready for its restore.
fn ready() -> Given {
    Given {
        state: "Pending:Wait",
        tag: Some("dtr"),
        predecessor: None,
        other_group: false,
        registered: true,
        sent_before: None,
        backups: &[BACKUP],
        listing_denied: false,
        parameter: true,
        refuses_command: false,
        answered_before: false,
    }
}

type Journal = Arc<Mutex<Vec<String>>>;

fn write(journal: &Journal, entry: impl Into<String>) {
    journal.lock().unwrap().push(entry.into());
}

fn group(name: &str, tag: Option<&str>, members: &[(&str, &str)]) -> AutoScalingGroup {
    let tag = tag.map(|value| {
        TagDescription::builder()
            .key("rekindle:stack")
            .value(value)
            .build()
    });
    let members = members.iter().map(|(id, state)| {
        Instance::builder()
            .instance_id(*id)
            .lifecycle_state((*state).into())
            .build()
    });
    AutoScalingGroup::builder()
        .auto_scaling_group_name(name)
        .set_tags(tag.map(|tag| vec![tag]))
        .set_instances(Some(members.collect()))
        .build()
}

fn autoscaling(given: &Given, journal: &Journal) -> aws_sdk_autoscaling::Client {
    use aws_sdk_autoscaling::Client;
    let state = given.state;
    let instances = mock!(Client::describe_auto_scaling_instances).then_output(move || {
        let details = AutoScalingInstanceDetails::builder()
            .instance_id(INSTANCE)
            .auto_scaling_group_name("dtr")
            .lifecycle_state(state);
        DescribeAutoScalingInstancesOutput::builder()
            .auto_scaling_instances(details.build())
            .build()
    });
    let known = given.clone();
    let groups = mock!(Client::describe_auto_scaling_groups).then_output(move || {
        let mut members = vec![(INSTANCE, known.state)];
        members.extend(known.predecessor.map(|state| (OLD_INSTANCE, state)));
        let other = [(OLD_INSTANCE, "InService")];
        let others = if known.other_group { &other[..] } else { &[] };
        DescribeAutoScalingGroupsOutput::builder()
            .auto_scaling_groups(group("dtr", known.tag, &members))
            .auto_scaling_groups(group("dtr-copy", known.tag, others))
            .build()
    });
    let activities = mock!(Client::describe_scaling_activities).then_output(|| {
        let minute_ago = OffsetDateTime::now_utc() - Duration::from_mins(1);
        let launch = Activity::builder()
            .description(format!("Launching a new EC2 instance: {INSTANCE}"))
            .start_time(DateTime::from_secs(minute_ago.unix_timestamp()));
        DescribeScalingActivitiesOutput::builder()
            .activities(launch.build())
            .build()
    });
    let complete = if given.answered_before {
        let words = "<ErrorResponse><Error><Code>ValidationError</Code><Message>No active Lifecycle Action found \
            with instance ID i-0123456789abcdef0</Message></Error></ErrorResponse>";
        mock!(Client::complete_lifecycle_action)
            .sequence()
            .http_status(400, Some(words.to_owned()))
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
    };
    let journal = Arc::clone(journal);
    let heartbeat = mock!(Client::record_lifecycle_action_heartbeat).then_output(move || {
        write(&journal, "heartbeat");
        RecordLifecycleActionHeartbeatOutput::builder().build()
    });
    let rules = [&instances, &groups, &activities, &complete, &heartbeat];
    mock_client!(aws_sdk_autoscaling, RuleMode::MatchAny, rules)
}

fn ssm(given: &Given, journal: &Journal) -> aws_sdk_ssm::Client {
    use aws_sdk_ssm::Client;
    let registered = given.registered;
    let ping = mock!(Client::describe_instance_information).then_output(move || {
        let information = InstanceInformation::builder()
            .instance_id(INSTANCE)
            .ping_status(PingStatus::Online)
            .build();
        DescribeInstanceInformationOutput::builder()
            .set_instance_information_list(Some(vec![information; usize::from(registered)]))
            .build()
    });
    let sent_before = given.sent_before.clone();
    let commands = mock!(Client::list_commands).then_output(move || {
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
    });
    let (status, output) = given.sent_before.clone().unwrap_or_default();
    let invocation = mock!(Client::get_command_invocation).then_output(move || {
        GetCommandInvocationOutput::builder()
            .status(status.into())
            .standard_output_content(&output)
            .build()
    });
    let parameter = if given.parameter {
        let value = json!({"schema_version": 1, "first_backup": BACKUP}).to_string();
        mock!(Client::get_parameter).then_output(move || {
            GetParameterOutput::builder()
                .parameter(Parameter::builder().value(&value).build())
                .build()
        })
    } else {
        mock!(Client::get_parameter)
            .sequence()
            .http_status(
                400,
                Some(json!({"__type": "ParameterNotFound"}).to_string()),
            )
            .repeatedly()
            .build()
    };
    let send = if given.refuses_command {
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
    };
    let rules = [&ping, &commands, &invocation, &parameter, &send];
    mock_client!(aws_sdk_ssm, RuleMode::MatchAny, rules)
}

fn manifest_of(backup: &str) -> String {
    let prefix = format!("backups/dtr/2026-11-23/{backup}/0a1b2c3d");
    let object = json!({"key": format!("{prefix}/index.json"), "size": 1, "sha256": "ab".repeat(32),
        "crc64": "AAAAAAAAAAA=", "version_id": "v1"});
    let node = json!({"instance_id": OLD_INSTANCE, "system_identifier": "1", "lineage": {"kind": "first-boot"}});
    let index = json!({"schema_version": 1, "stack": "dtr", "backup_id": backup, "run_id": "0a1b2c3d",
        "operation_id": backup, "purpose": "scheduled", "node": node,
        "versions": {"server": 150_018, "pg_dump": "pg_dump", "agent": "0.1.0"},
        "started_at": "2026-11-23T02:15:00Z", "finished_at": "2026-11-23T02:15:09Z", "databases": [],
        "configuration_paths": [], "objects": [], "timings": []});
    json!({"schema_version": 1, "committed_at": "2026-11-23T02:15:10Z", "command_id": COMMAND,
        "index_object": object, "index": index})
    .to_string()
}

fn s3(given: &Given) -> aws_sdk_s3::Client {
    use aws_sdk_s3::Client;
    let backups = given.backups;
    let list = if given.listing_denied {
        let words = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>";
        mock!(Client::list_objects_v2)
            .sequence()
            .http_status(403, Some(words.to_owned()))
            .repeatedly()
            .build()
    } else {
        mock!(Client::list_objects_v2).then_compute_output(move |request| {
            let days = CommonPrefix::builder().prefix("manifests/dtr/2026-11-23/");
            let of_days =
                (request.delimiter().is_some() && !backups.is_empty()).then(|| days.build());
            let keys = backups.iter().filter(|_| request.delimiter().is_none());
            let objects = keys.map(|id| {
                let key = format!("manifests/dtr/2026-11-23/{id}.json");
                Object::builder().key(key).build()
            });
            ListObjectsV2Output::builder()
                .set_common_prefixes(of_days.map(|days| vec![days]))
                .set_contents(Some(objects.collect()))
                .build()
        })
    };
    let get = mock!(Client::get_object).then_compute_output(|request| {
        let backup = layout::backup_of_manifest(request.key().unwrap()).unwrap();
        let manifest = ByteStream::from(manifest_of(backup.as_str()).into_bytes());
        GetObjectOutput::builder().body(manifest).build()
    });
    let head = mock!(Client::head_object).then_output(|| HeadObjectOutput::builder().build());
    let put = mock!(Client::put_object).then_output(|| PutObjectOutput::builder().build());
    mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&list, &get, &head, &put])
}

fn config() -> Config {
    Config {
        bucket: "backups".to_owned(),
        backup_document: "rekindle-backup".to_owned(),
        restore_document: "rekindle-restore".to_owned(),
        // Any file serves: what is published is not looked at here.
        agent: concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into(),
        metric_namespace: "Rekindle".to_owned(),
    }
}

/// Handles an event, as under `cargo lambda watch` with no time to wait; says what came of it and what was done.
async fn handled(given: &Given, event: Value) -> (String, String) {
    let journal = Journal::default();
    let aws = Aws {
        autoscaling: autoscaling(given, &journal),
        ssm: ssm(given, &journal),
        s3: s3(given),
    };
    let event = LambdaEvent::new(event, Context::default());
    let answer = match handle(&aws, &config(), event).await {
        Ok(advanced) => {
            let outcomes = advanced
                .iter()
                .map(|it| serde_json::to_value(it.outcome).unwrap());
            let outcomes: Vec<String> =
                outcomes.map(|it| it.as_str().unwrap().to_owned()).collect();
            outcomes.join(" ")
        }
        Err(error) => format!("{error:?}"),
    };
    let done = journal.lock().unwrap().join("; ");
    (answer, done)
}

fn launching() -> Value {
    json!({"detail-type": "EC2 Instance-launch Lifecycle Action", "source": "aws.autoscaling", "detail": {
        "AutoScalingGroupName": "dtr", "LifecycleHookName": "rekindle-launch", "EC2InstanceId": INSTANCE}})
}

fn finished(document: &str) -> Value {
    json!({"detail-type": "EC2 Command Invocation Status-change Notification", "source": "aws.ssm", "detail": {
        "command-id": COMMAND, "document-name": document, "instance-id": INSTANCE, "status": "Success"}})
}

fn sweep_request() -> Value {
    json!({"rekindle": "sweep"})
}

fn success() -> String {
    Report::Restore(RestoreReport {
        operation_id: format!("launch-{INSTANCE}").parse().unwrap(),
        outcome: RestoreOutcome::Restored {
            backup_id: BACKUP.parse().unwrap(),
            age_seconds: 62,
            rows: 100_000,
            bytes: 1_000_000,
        },
        skipped: vec![SkippedBackup {
            backup_id: "20261123T023000.000Z".parse().unwrap(),
            exit_code: ExitCode::Verification,
            reason: "cut short".to_owned(),
        }],
        seconds: 4.5,
        swap_seconds: 0.1,
        peak_memory_kib: 1,
    })
    .to_line()
}

fn failure() -> String {
    Report::Failure(FailureReport {
        operation_id: format!("launch-{INSTANCE}").parse().unwrap(),
        exit_code: ExitCode::DiskTooSmall,
        message: "12 GiB needed, 8 GiB free".to_owned(),
    })
    .to_line()
}

/// Checks that a launch event, and the sweep that follows a lost one, come to the same.
async fn check(given: &Given, outcome: &str, done: &str) {
    for event in [launching(), sweep_request()] {
        let came = handled(given, event.clone()).await;
        assert_eq!(came, (outcome.to_owned(), done.to_owned()), "{event}");
    }
}

fn sent(candidates: &str) -> String {
    format!("send launch-{INSTANCE} {candidates}")
}

#[tokio::test]
async fn a_ready_instance_is_sent_its_restore_and_gets_no_answer_yet() {
    let candidate = format!("{BACKUP}/0a1b2c3d/{}/v1", "ab".repeat(32));
    check(&ready(), "sent-restore", &sent(&candidate)).await;
}

#[tokio::test]
async fn a_stack_without_a_past_is_sent_its_first_boot() {
    let given = Given {
        backups: &[],
        parameter: false,
        ..ready()
    };
    check(&given, "sent-first-boot", &sent("none")).await;
}

#[tokio::test]
async fn a_stack_whose_backups_are_gone_is_abandoned() {
    let given = Given {
        backups: &[],
        ..ready()
    };
    check(&given, "abandoned", "ABANDON").await;
}

#[tokio::test]
async fn a_denied_listing_is_no_first_boot() {
    let given = Given {
        listing_denied: true,
        parameter: false,
        ..ready()
    };
    check(&given, "abandoned", "ABANDON").await;
}

#[tokio::test]
async fn a_stack_that_two_groups_share_is_abandoned() {
    let given = Given {
        other_group: true,
        ..ready()
    };
    check(&given, "abandoned", "ABANDON").await;
}

#[tokio::test]
async fn nothing_is_done_while_the_agent_or_a_predecessor_is_waited_for() {
    let unregistered = Given {
        registered: false,
        ..ready()
    };
    check(&unregistered, "waiting-for-agent", "").await;
    let refused = Given {
        refuses_command: true,
        ..ready()
    };
    check(&refused, "waiting-for-agent", "").await;
    for state in ["Terminating", "Terminating:Wait", "Terminating:Proceed"] {
        let fenced = Given {
            predecessor: Some(state),
            ..ready()
        };
        check(&fenced, "waiting-for-predecessor", "").await;
    }
    let retained = Given {
        predecessor: Some("Terminating:Retained"),
        backups: &[],
        parameter: false,
        ..ready()
    };
    check(&retained, "sent-first-boot", &sent("none")).await;
}

#[tokio::test]
async fn a_second_delivery_sends_nothing_and_keeps_the_hook_open() {
    let given = Given {
        sent_before: Some(("InProgress", String::new())),
        ..ready()
    };
    check(&given, "already-running", "heartbeat").await;
}

#[tokio::test]
async fn the_end_of_the_restore_is_the_answer() {
    let with = |status, output| Given {
        sent_before: Some((status, output)),
        ..ready()
    };
    let cases = [
        (with("Success", success()), "continued", "CONTINUE"),
        (with("Success", String::new()), "abandoned", "ABANDON"),
        (with("Failed", failure()), "abandoned", "ABANDON"),
        (with("TimedOut", String::new()), "abandoned", "ABANDON"),
    ];
    for (given, outcome, answer) in cases {
        check(&given, outcome, answer).await;
        let came = handled(&given, finished("rekindle-restore")).await;
        assert_eq!(came, (outcome.to_owned(), answer.to_owned()));
    }
}

#[tokio::test]
async fn an_answer_that_was_given_before_is_no_failure() {
    let given = Given {
        sent_before: Some(("Success", success())),
        answered_before: true,
        ..ready()
    };
    check(&given, "continued", "").await;
}

#[tokio::test]
async fn an_instance_in_service_is_left_alone() {
    let given = Given {
        state: "InService",
        ..ready()
    };
    let left_alone = ("already-resolved".to_owned(), String::new());
    assert_eq!(handled(&given, launching()).await, left_alone);
    assert_eq!(
        handled(&given, finished("rekindle-restore")).await,
        left_alone
    );
    let nothing = (String::new(), String::new());
    assert_eq!(handled(&given, sweep_request()).await, nothing);
}

#[tokio::test]
async fn an_instance_passes_into_the_warm_pool_without_a_restore() {
    let given = Given {
        state: "Warmed:Pending:Wait",
        ..ready()
    };
    check(&given, "passed-into-warm-pool", "CONTINUE").await;
}

#[tokio::test]
async fn a_replaced_root_volume_is_abandoned() {
    let mut event = launching();
    event["detail"]["Action"] = json!("ReplaceRootVolume");
    let abandoned = ("abandoned".to_owned(), "ABANDON".to_owned());
    assert_eq!(handled(&ready(), event).await, abandoned);
}

#[tokio::test]
async fn a_group_without_a_stack_gets_no_answer() {
    for tag in [None, Some("Not A Stack")] {
        let given = Given { tag, ..ready() };
        let refused = ("not-protected".to_owned(), String::new());
        assert_eq!(handled(&given, launching()).await, refused);
    }
}

#[tokio::test]
async fn what_belongs_to_the_backup_function_is_refused_by_name() {
    let mut terminating = launching();
    terminating["detail-type"] = json!("EC2 Instance-terminate Lifecycle Action");
    let mut other_hook = launching();
    other_hook["detail"]["LifecycleHookName"] = json!("warm-up");
    let cases = [
        (
            terminating,
            "Event: unusable event: the terminate hook is the backup function's; send this event there",
        ),
        (
            json!({"rekindle": "backup-now", "stack": "dtr"}),
            "Event: unusable event: requests on backups are the backup function's; send this event there",
        ),
        (
            finished("rekindle-backup"),
            "Event: unusable event: `document-name` is \"rekindle-backup\"; the restore function handles \"rekindle-restore\" alone",
        ),
        (
            other_hook,
            "Event: unusable event: `LifecycleHookName` is \"warm-up\"; the restore function handles \"rekindle-launch\" alone",
        ),
    ];
    for (event, words) in cases {
        let refused = (words.to_owned(), String::new());
        assert_eq!(handled(&ready(), event).await, refused);
    }
}

#[test]
fn the_answer_of_an_invocation_is_one_entry_per_instance() {
    let advanced = [Advanced {
        instance_id: INSTANCE.parse().unwrap(),
        outcome: Outcome::WaitingForPredecessor,
    }];
    insta::assert_json_snapshot!(advanced, @r#"
    [
      {
        "instance_id": "i-0123456789abcdef0",
        "outcome": "waiting-for-predecessor"
      }
    ]
    "#);
}
