//! Every event that the functions handle, as one closed enum. Each event is a hint: it may be lost, repeated or late.

use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Error, Result};
use crate::id::{ApplicationName, BackupId, CommandId, InstanceId, Subject};

/// An event that a function is invoked with.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The backup schedule fired: an EventBridge rule or an EventBridge Scheduler schedule.
    Tick {
        /// The scheduled time. Every delivery of one firing has the same, so it names the backup.
        scheduled: OffsetDateTime,
    },
    /// The one-minute rule fired: reconcile what a lost event left unfinished.
    Sweep,
    /// An SSM command ended on one instance.
    CommandFinished(CommandStatus),
    /// An instance waits in a launch hook.
    InstanceLaunching(LifecycleAction),
    /// An instance waits in a terminate hook.
    InstanceTerminating(LifecycleAction),
    /// An operator sent a request.
    Request(Request),
}

/// Checks that an event is for a function: that a field of it has the expected value. A rule may send others.
///
/// # Errors
/// [`Error::Event`] if the field has another value.
pub fn expect_equal(function: &str, field: &str, found: &str, expected: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Event(format!(
        "`{field}` is {found:?}, but the {function} function handles {expected:?} only; correct the rule"
    )))
}

/// The end of an SSM command on one instance.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CommandStatus {
    /// The command.
    pub command_id: CommandId,
    /// The SSM document that it ran.
    pub document_name: String,
    /// The instance.
    pub instance_id: InstanceId,
    /// The status in the event. Only `GetCommandInvocation` returns the authoritative one.
    pub status: String,
}

/// An instance that waits in a lifecycle hook.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LifecycleAction {
    /// The Auto Scaling group.
    pub auto_scaling_group_name: String,
    /// The hook.
    pub lifecycle_hook_name: String,
    /// The instance.
    #[serde(rename = "EC2InstanceId")]
    pub instance_id: InstanceId,
    /// The location that the instance leaves; absent in older events.
    pub origin: Option<Location>,
    /// The location that it enters; absent in older events.
    pub destination: Option<Location>,
    /// `ReplaceRootVolume` if the instance stays and its root volume is replaced, otherwise absent.
    pub action: Option<String>,
}

/// The origin or destination of a lifecycle transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Location {
    /// Outside the group.
    #[serde(rename = "EC2")]
    Ec2,
    /// The group.
    AutoScalingGroup,
    /// The group's warm pool.
    WarmPool,
    /// A location that AWS has added since.
    #[serde(other)]
    Unknown,
}

impl LifecycleAction {
    /// Returns whether the instance keeps its id and loses its disk.
    pub fn replaces_root_volume(&self) -> bool {
        self.action.as_deref() == Some("ReplaceRootVolume")
    }
}

/// A request of an operator: `{"rekindle": "<request>", …}`. IAM's `lambda:InvokeFunction` is the only authorisation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "rekindle", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Run a sweep: the constant input of the one-minute rule.
    Sweep,
    /// Back up this application's node outside the schedule.
    BackupNow {
        /// The application.
        application: ApplicationName,
    },
    /// List this application's newest committed backups.
    ListBackups {
        /// The application.
        application: ApplicationName,
        /// The largest number of backups to list, 20 by default.
        #[serde(default = "default_limit")]
        limit: usize,
    },
    /// Declare that this application's running node has the authoritative data, and back them up.
    Adopt {
        /// The application.
        application: ApplicationName,
        /// Must be `true` if the application already has backups: the adopted data become the newest backup.
        #[serde(default)]
        over_existing_backups: bool,
    },
    /// Commit a quarantined backup.
    AcceptQuarantined {
        /// The application.
        application: ApplicationName,
        /// The backup.
        backup_id: BackupId,
    },
    /// Delete the manifest of a quarantined backup: the backup does not exist any more.
    RejectQuarantined {
        /// The application.
        application: ApplicationName,
        /// The backup.
        backup_id: BackupId,
    },
    /// Exclude a backup from retention.
    Pin {
        /// The application.
        application: ApplicationName,
        /// The backup.
        backup_id: BackupId,
    },
    /// Let retention delete a pinned backup again.
    Unpin {
        /// The application.
        application: ApplicationName,
        /// The backup.
        backup_id: BackupId,
    },
    /// Restore a backup in place onto this application's running node, after a backup of its current data.
    RestoreBackup {
        /// The application.
        application: ApplicationName,
        /// The backup to restore, committed or quarantined.
        #[serde(default)]
        backup_id: Option<BackupId>,
        /// Or the time: the newest committed backup that was requested before it is restored.
        #[serde(default, with = "time::serde::rfc3339::option")]
        before: Option<OffsetDateTime>,
    },
    /// Close the circuit breaker of this application's group, and resume the launches that Rekindle suspended.
    Resume {
        /// The application.
        application: ApplicationName,
    },
}

fn default_limit() -> usize {
    20
}

impl Event {
    /// Returns the application that an operator's request names, or `None` for other events.
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

    /// Parses an event as Lambda passes it.
    ///
    /// # Errors
    /// [`Error::Event`] if the event has an unknown type, or lacks a field.
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
            let message = "it has neither EventBridge's `detail-type` nor the `rekindle` of an operator's request";
            return Err(Error::Event(message.to_owned()));
        };
        match detail_type.as_str() {
            // The detail of a schedule's event may have any type, so it is not read.
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
                "Rekindle does not handle the detail-type {other:?}; correct the rule"
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
    // The envelope's `time` is not used, and some examples in AWS' documentation have a malformed one.
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
    fn the_detail_of_a_scheduler_tick_is_a_string() {
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
            r#"unusable event: Rekindle does not handle the detail-type "EC2 Spot Instance Interruption Warning"; correct the rule"#
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
    fn an_unknown_field_of_a_request_is_named() {
        for request in ["backup-now", "resume"] {
            let error =
                Event::parse(json!({"rekindle": request, "aplication": "dtr"})).unwrap_err();
            assert!(error.chain().contains("aplication"), "{error:?}");
        }
    }
}
