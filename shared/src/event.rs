//! Everything that can happen, as one closed enum. Every event is a hint: it may be lost, repeated or late.

use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Error, Result};
use crate::failure::Subject;
use crate::id::{ApplicationName, BackupId, CommandId, InstanceId};

/// What the two functions are invoked with.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The backup schedule fired: an EventBridge rule or an EventBridge Scheduler schedule.
    Tick {
        /// When; the same for every delivery of one firing, so that it can name the backup.
        scheduled: OffsetDateTime,
    },
    /// The one-minute rule fired: advance whatever a lost event left behind.
    Sweep,
    /// An SSM command ended on one instance.
    CommandFinished(CommandStatus),
    /// An instance waits in the launch hook.
    InstanceLaunching(LifecycleAction),
    /// An instance waits in the terminate hook.
    InstanceTerminating(LifecycleAction),
    /// An operator asked for something.
    Request(Request),
}

/// The end of an SSM command on one instance.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CommandStatus {
    /// The command.
    pub command_id: CommandId,
    /// The document that it ran.
    pub document_name: String,
    /// Where.
    pub instance_id: InstanceId,
    /// The state it ended in, as the event has it. `GetCommandInvocation` decides.
    pub status: String,
}

/// An instance that waits in a lifecycle hook.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LifecycleAction {
    /// The group.
    pub auto_scaling_group_name: String,
    /// The hook.
    pub lifecycle_hook_name: String,
    /// The instance.
    #[serde(rename = "EC2InstanceId")]
    pub instance_id: InstanceId,
    /// Where the instance comes from; absent in older events.
    pub origin: Option<Location>,
    /// Where it goes.
    pub destination: Option<Location>,
    /// Set only where the instance stays and its root volume is replaced.
    pub action: Option<String>,
}

/// The ends of a lifecycle transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Location {
    /// Outside the group.
    #[serde(rename = "EC2")]
    Ec2,
    /// The group.
    AutoScalingGroup,
    /// The group's warm pool.
    WarmPool,
    /// A place that AWS has added since.
    #[serde(other)]
    Unknown,
}

impl LifecycleAction {
    /// Tells whether the instance keeps its id and loses its disk.
    pub fn replaces_root_volume(&self) -> bool {
        self.action.as_deref() == Some("ReplaceRootVolume")
    }
}

/// What an operator asks for: `{"rekindle": "<request>", …}`, authorised by IAM's `lambda:InvokeFunction` alone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "rekindle", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What the one-minute rule sends as its constant input.
    Sweep,
    /// Take a backup of this application's node outside the schedule.
    BackupNow {
        /// The application.
        application: ApplicationName,
    },
    /// Name this application's newest committed backups.
    ListBackups {
        /// The application.
        application: ApplicationName,
        /// At most so many, 20 by default.
        #[serde(default = "default_limit")]
        limit: usize,
    },
    /// Declare that the data of this application's running node are the truth, and back them up.
    Adopt {
        /// The application.
        application: ApplicationName,
        /// Needed where the application already has backups, which then no longer are the newest.
        #[serde(default)]
        over_existing_backups: bool,
    },
    /// Let a backup that was kept aside take its place among the committed ones.
    AcceptQuarantined {
        /// The application.
        application: ApplicationName,
        /// The backup.
        backup_id: BackupId,
    },
    /// Take a backup out of quarantine for good.
    RejectQuarantined {
        /// The application.
        application: ApplicationName,
        /// The backup.
        backup_id: BackupId,
    },
    /// Keep a backup for ever.
    Pin {
        /// The application.
        application: ApplicationName,
        /// The backup.
        backup_id: BackupId,
    },
    /// Leave a pinned backup to retention again.
    Unpin {
        /// The application.
        application: ApplicationName,
        /// The backup.
        backup_id: BackupId,
    },
    /// Restore a chosen backup onto this application's running node, after a backup of what it has.
    RestoreBackup {
        /// The application.
        application: ApplicationName,
        /// This one, committed or kept aside.
        #[serde(default)]
        backup_id: Option<BackupId>,
        /// Or the newest committed one that was asked for before a time.
        #[serde(default, with = "time::serde::rfc3339::option")]
        before: Option<OffsetDateTime>,
    },
    /// Close the breaker of this application's group, and let the group launch again what Rekindle kept it from launching.
    Resume {
        /// The application.
        application: ApplicationName,
    },
}

fn default_limit() -> usize {
    20
}

impl Event {
    /// Returns the application that an operator's request names; other events name none.
    pub fn application(&self) -> Option<&ApplicationName> {
        match self {
            Self::Request(
                Request::BackupNow { application }
                | Request::ListBackups { application, .. }
                | Request::Adopt { application, .. }
                | Request::AcceptQuarantined { application, .. }
                | Request::RejectQuarantined { application, .. }
                | Request::Pin { application, .. }
                | Request::Unpin { application, .. }
                | Request::RestoreBackup { application, .. }
                | Request::Resume { application },
            ) => Some(application),
            _ => None,
        }
    }

    /// Returns the ids that the event names.
    pub fn subject(&self) -> Subject<'_> {
        let mut subject = Subject {
            application: self.application(),
            ..Subject::default()
        };
        match self {
            Self::CommandFinished(status) => {
                subject.command_id = Some(&status.command_id);
                subject.instance_id = Some(&status.instance_id);
            }
            Self::InstanceLaunching(action) | Self::InstanceTerminating(action) => {
                subject.group = Some(&action.auto_scaling_group_name);
                subject.instance_id = Some(&action.instance_id);
            }
            Self::Tick { .. } | Self::Sweep | Self::Request(_) => {}
        }
        subject
    }

    /// Reads an event as Lambda passes it.
    pub fn parse(payload: Value) -> Result<Self> {
        if payload.get("rekindle").is_some() {
            let request =
                serde_json::from_value(payload).map_err(|error| Error::Event(error.to_string()))?;
            return Ok(match request {
                Request::Sweep => Self::Sweep,
                other => Self::Request(other),
            });
        }
        let Some(detail_type) = payload
            .get("detail-type")
            .and_then(Value::as_str)
            .map(str::to_owned)
        else {
            let message = "neither `detail-type` of EventBridge nor `rekindle` of an operator's request is there";
            return Err(Error::Event(message.to_owned()));
        };
        match detail_type.as_str() {
            // A schedule's detail is an object, a string or whatever its owner put there: nothing of it is read.
            "Scheduled Event" => Ok(Self::Tick {
                scheduled: scheduled_time(&payload)?,
            }),
            "EC2 Command Invocation Status-change Notification" => {
                Ok(Self::CommandFinished(detail(payload)?))
            }
            "EC2 Instance-launch Lifecycle Action" => Ok(Self::InstanceLaunching(detail(payload)?)),
            "EC2 Instance-terminate Lifecycle Action" => {
                Ok(Self::InstanceTerminating(detail(payload)?))
            }
            other => Err(Error::Event(format!(
                "detail-type {other:?} is none that Rekindle handles"
            ))),
        }
    }
}

fn scheduled_time(payload: &Value) -> Result<OffsetDateTime> {
    let time = payload.get("time").and_then(Value::as_str);
    let time =
        time.ok_or_else(|| Error::Event("`time` of the scheduled event is missing".to_owned()))?;
    OffsetDateTime::parse(time, &Rfc3339)
        .map_err(|error| Error::Event(format!("`time` {time:?}: {error}")))
}

fn detail<T: for<'de> Deserialize<'de>>(payload: Value) -> Result<T> {
    // The envelope's own `time` is optional here and unused; AWS' documentation itself shows malformed ones.
    let mut payload = payload;
    if let Some(envelope) = payload.as_object_mut() {
        envelope.remove("time");
    }
    let event: EventBridgeEvent<Value> =
        serde_json::from_value(payload).map_err(|error| Error::Event(error.to_string()))?;
    let detail_type = event.detail_type;
    serde_json::from_value(event.detail)
        .map_err(|error| Error::Event(format!("`detail` of {detail_type:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_scheduler_tick_has_a_string_for_its_detail() {
        let payload = json!({"detail-type": "Scheduled Event", "source": "aws.scheduler",
            "time": "2026-11-23T02:15:00Z", "detail": "{}"});
        let scheduled = time::macros::datetime!(2026-11-23 02:15:00 UTC);
        assert_eq!(Event::parse(payload).unwrap(), Event::Tick { scheduled });
    }

    #[test]
    fn an_unknown_detail_type_is_named() {
        let error = Event::parse(json!({"detail-type": "EC2 Spot Instance Interruption Warning"}))
            .unwrap_err();
        assert_eq!(
            error.chain(),
            r#"unusable event: detail-type "EC2 Spot Instance Interruption Warning" is none that Rekindle handles"#
        );
        assert!(!error.retryable());
    }

    #[test]
    fn a_missing_field_is_named() {
        let payload = json!({"detail-type": "EC2 Instance-launch Lifecycle Action", "source": "aws.autoscaling",
            "detail": {"AutoScalingGroupName": "dtr", "LifecycleHookName": "rekindle-launch"}});
        let error = Event::parse(payload).unwrap_err();
        assert!(
            error.chain().contains("missing field `EC2InstanceId`"),
            "{error:?}"
        );
    }

    #[test]
    fn a_misspelt_field_of_a_request_is_named() {
        for request in ["backup-now", "resume"] {
            let error = Event::parse(json!({"rekindle": request, "stak": "dtr"})).unwrap_err();
            assert!(error.chain().contains("stak"), "{error:?}");
        }
    }
}
