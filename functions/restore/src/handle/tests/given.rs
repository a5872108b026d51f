//! An AWS for tests: its state when an event arrives, and a journal of the changes that are made to it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_sdk_autoscaling::operation::complete_lifecycle_action::CompleteLifecycleActionOutput;
use aws_sdk_autoscaling::operation::describe_auto_scaling_groups::DescribeAutoScalingGroupsOutput;
use aws_sdk_autoscaling::operation::describe_auto_scaling_instances::DescribeAutoScalingInstancesOutput;
use aws_sdk_autoscaling::operation::describe_scaling_activities::DescribeScalingActivitiesOutput;
use aws_sdk_autoscaling::operation::record_lifecycle_action_heartbeat::RecordLifecycleActionHeartbeatOutput;
use aws_sdk_autoscaling::operation::resume_processes::ResumeProcessesOutput;
use aws_sdk_autoscaling::operation::suspend_processes::SuspendProcessesOutput;
use aws_sdk_autoscaling::types::{
    Activity, AutoScalingGroup, AutoScalingInstanceDetails, Instance, SuspendedProcess,
    TagDescription,
};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::operation::put_object::PutObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CommonPrefix, Object};
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
use shared::aws::autoscaling::LAUNCH_HOOK;
use shared::aws::{Aws, lazy};
use shared::layout;
use time::OffsetDateTime;

pub(super) const INSTANCE: &str = "i-0123456789abcdef0";
pub(super) const OLD_INSTANCE: &str = "i-0fedcba9876543210";
pub(super) const COMMAND: &str = "00000000-0000-4000-8000-000000000001";
pub(super) const BACKUP: &str = "20261123T021500.000Z";

/// The state of AWS when an event arrives.
#[derive(Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact about AWS that is independent of the others"
)]
pub(super) struct Given {
    pub(super) state: &'static str,
    pub(super) tag: Option<&'static str>,
    pub(super) predecessor: Option<&'static str>,
    /// The health of the group's members.
    pub(super) health: &'static str,
    /// Another group with the same tag, which has an instance.
    pub(super) other_group: bool,
    pub(super) registered: bool,
    /// The status and output of a restore that was sent before.
    pub(super) sent_before: Option<(&'static str, String)>,
    pub(super) backups: &'static [&'static str],
    pub(super) listing_denied: bool,
    /// S3 answers `SlowDown` to every listing.
    pub(super) listing_slow: bool,
    pub(super) parameter: bool,
    pub(super) refuses_command: bool,
    pub(super) answered_before: bool,
    /// How many launches failed right before this one.
    pub(super) failed_before: u8,
    pub(super) suspended: bool,
    /// The record of the group's breaker.
    pub(super) breaker: Option<Value>,
    /// The error code with which AWS refuses to suspend anything.
    pub(super) refuses_to_suspend: Option<&'static str>,
    /// An operator closes the breaker while a suspension is throttled.
    pub(super) closed_meanwhile: bool,
    /// How many minutes ago the launch began.
    pub(super) minutes: u64,
}

/// A protected instance that is ready for its restore.
pub(super) fn ready() -> Given {
    Given {
        state: "Pending:Wait",
        tag: Some("dtr"),
        predecessor: None,
        health: "Healthy",
        other_group: false,
        registered: true,
        sent_before: None,
        backups: &[BACKUP],
        listing_denied: false,
        listing_slow: false,
        parameter: true,
        refuses_command: false,
        answered_before: false,
        failed_before: 0,
        suspended: false,
        breaker: None,
        refuses_to_suspend: None,
        closed_meanwhile: false,
        minutes: 1,
    }
}

pub(super) type Journal = Arc<Mutex<Vec<String>>>;

/// The value of the breakers' parameter.
type Record = Arc<Mutex<Option<Value>>>;

fn breakers(breaker: &Value) -> Value {
    json!({"schema_version": 1, "groups": {"dtr": breaker}})
}

fn write(journal: &Journal, entry: impl Into<String>) {
    journal.lock().unwrap().push(entry.into());
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

fn autoscaling(given: &Given, journal: &Journal, record: &Record) -> aws_sdk_autoscaling::Client {
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
            .auto_scaling_groups(group(
                "dtr",
                known.tag,
                known.health,
                &members,
                known.suspended,
            ))
            .auto_scaling_groups(group("dtr-copy", known.tag, known.health, others, false))
            .build()
    });
    let (failed_before, minutes) = (given.failed_before, given.minutes);
    let activities = mock!(Client::describe_scaling_activities).then_output(move || {
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
    });
    let complete = if given.answered_before {
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
    };
    let suspend = suspension(given, journal, record);
    let writes = Arc::clone(journal);
    let resume = mock!(Client::resume_processes).then_compute_output(move |request| {
        assert_eq!(request.auto_scaling_group_name(), Some("dtr"));
        write(
            &writes,
            format!("resume {}", request.scaling_processes().join(" ")),
        );
        ResumeProcessesOutput::builder().build()
    });
    let journal = Arc::clone(journal);
    let heartbeat = mock!(Client::record_lifecycle_action_heartbeat).then_output(move || {
        write(&journal, "heartbeat");
        RecordLifecycleActionHeartbeatOutput::builder().build()
    });
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

fn suspension(given: &Given, journal: &Journal, record: &Record) -> Rule {
    use aws_sdk_autoscaling::Client;
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

fn ssm(given: &Given, journal: &Journal, record: &Record) -> aws_sdk_ssm::Client {
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
    let state = json!({"schema_version": 1, "first_backup": BACKUP});
    let state = given.parameter.then_some(state);
    let state = parameter("/rekindle/dtr", &Arc::new(Mutex::new(state)));
    let breaker = parameter("/rekindle/dtr/breaker", record);
    let (writes, record) = (Arc::clone(journal), Arc::clone(record));
    let put = mock!(Client::put_parameter).then_compute_output(move |request| {
        assert_eq!(request.name(), Some("/rekindle/dtr/breaker"));
        let value: Value = serde_json::from_str(request.value().unwrap()).unwrap();
        *record.lock().unwrap() = Some(value.clone());
        let breaker = &value["groups"]["dtr"];
        let entry = format!("record {} {}", breaker["state"], breaker["trips"]);
        write(&writes, entry.replace('"', ""));
        PutParameterOutput::builder().build()
    });
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
    let rules = [&ping, &commands, &invocation, &state, &breaker, &put, &send];
    mock_client!(aws_sdk_ssm, RuleMode::MatchAny, rules)
}

fn parameter(name: &'static str, value: &Record) -> Rule {
    let value = Arc::clone(value);
    mock!(aws_sdk_ssm::Client::get_parameter)
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

fn manifest_of(backup: &str) -> String {
    let prefix = format!("backups/dtr/2026-11-23/{backup}/0a1b2c3d");
    let object = json!({"key": format!("{prefix}/index.json"), "size": 1, "sha256": "ab".repeat(32),
        "crc64": "AAAAAAAAAAA=", "version_id": "v1"});
    let node = json!({"instance_id": OLD_INSTANCE, "system_identifier": "1", "lineage": {"kind": "first-boot"}});
    let index = json!({"schema_version": 1, "application": "dtr", "backup_id": backup, "run_id": "0a1b2c3d",
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
    let refusal = match (given.listing_denied, given.listing_slow) {
        (true, _) => Some((403, "AccessDenied")),
        (_, true) => Some((503, "SlowDown")),
        _ => None,
    };
    let list = if let Some((status, code)) = refusal {
        let body = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
        mock!(Client::list_objects_v2)
            .sequence()
            .http_status(status, Some(body))
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
                .name("bucket")
                .set_common_prefixes(of_days.map(|days| vec![days]))
                .set_contents(Some(objects.collect()))
                .build()
        })
    };
    let get = mock!(Client::get_object).then_compute_output(|request| {
        let backup = layout::backup_of_manifest(request.key().unwrap()).unwrap();
        let manifest = ByteStream::from(manifest_of(backup.as_str()).into_bytes());
        GetObjectOutput::builder()
            .e_tag("\"1\"")
            .body(manifest)
            .build()
    });
    let head = mock!(Client::head_object)
        .then_output(|| HeadObjectOutput::builder().e_tag("\"1\"").build());
    let put =
        mock!(Client::put_object).then_output(|| PutObjectOutput::builder().e_tag("\"1\"").build());
    mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&list, &get, &head, &put])
}

impl Given {
    /// Returns clients of this AWS.
    pub(super) fn clients(&self, journal: &Journal) -> Aws {
        let record: Record = Arc::new(Mutex::new(self.breaker.as_ref().map(breakers)));
        let autoscaling = autoscaling(self, journal, &record);
        let (ssm, s3) = (ssm(self, journal, &record), s3(self));
        Aws {
            autoscaling: lazy(|| autoscaling),
            ssm: lazy(|| ssm),
            s3: lazy(|| s3),
        }
    }
}
