//! Commands as SSM stores them: their invocations, and the steps of each invocation.

use std::sync::Arc;

use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::watch;

use super::document::{Document, Parameters};
use crate::standin::clock::milliseconds;

/// The status of a step, an invocation or a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not delivered yet.
    Pending,
    /// Delivered, and its end is not reported yet.
    InProgress,
    /// Ended with exit code 0.
    Success,
    /// Ended with another exit code.
    Failed,
    /// Ended by `CancelCommand`.
    Cancelled,
    /// `CancelCommand` was called, and the node has not reported yet.
    Cancelling,
    /// Not delivered in time, or delivered to a node that never reported.
    DeliveryTimedOut,
    /// Killed by the agent after `timeoutSeconds`.
    ExecutionTimedOut,
    /// Not delivered because the command had more errors than `MaxErrors`.
    Terminated,
}

impl Status {
    /// Returns the value of `StatusDetails`.
    pub fn details(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::InProgress => "InProgress",
            Self::Success => "Success",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
            Self::Cancelling => "Cancelling",
            Self::DeliveryTimedOut => "DeliveryTimedOut",
            Self::ExecutionTimedOut => "ExecutionTimedOut",
            Self::Terminated => "Terminated",
        }
    }

    /// Returns the value of `Status`, which has fewer values than `StatusDetails`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeliveryTimedOut | Self::ExecutionTimedOut => "TimedOut",
            Self::Terminated => "Cancelled",
            other => other.details(),
        }
    }

    /// Returns whether the status can no longer change.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::InProgress | Self::Cancelling)
    }
}

/// One step of a document on one instance.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) status: Status,
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) started: Option<OffsetDateTime>,
    pub(super) ended: Option<OffsetDateTime>,
}

/// A command on one instance.
#[derive(Debug, Clone)]
pub(super) struct Invocation {
    pub(super) instance: String,
    pub(super) status: Status,
    pub(super) steps: Vec<Step>,
    /// The time by which the agent must accept it.
    pub(super) deliver_by: OffsetDateTime,
    /// The time after which SSM stops waiting for a silent agent.
    pub(super) end_by: OffsetDateTime,
    /// Becomes true when the command is cancelled.
    pub(super) cancel: watch::Sender<bool>,
}

/// A command.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) id: String,
    pub(super) document: Arc<Document>,
    pub(super) parameters: Parameters,
    pub(super) comment: String,
    pub(super) requested: OffsetDateTime,
    pub(super) visible_from: OffsetDateTime,
    pub(super) expires: OffsetDateTime,
    pub(super) timeout_seconds: u32,
    pub(super) max_concurrency: String,
    pub(super) max_errors: String,
    pub(super) invocations: Vec<Invocation>,
}

impl Command {
    /// Returns the status of the whole command.
    pub(super) fn status(&self) -> Status {
        let all = || self.invocations.iter().map(|invocation| invocation.status);
        if all().all(|status| status == Status::Pending) {
            return Status::Pending;
        }
        if all().any(|status| status == Status::Cancelling) {
            return Status::Cancelling;
        }
        if all().any(|status| !status.is_final()) {
            return Status::InProgress;
        }
        [
            Status::Failed,
            Status::ExecutionTimedOut,
            Status::DeliveryTimedOut,
            Status::Cancelled,
            Status::Terminated,
        ]
        .into_iter()
        .find(|worst| all().any(|status| status == *worst))
        .unwrap_or(Status::Success)
    }

    /// Returns the number of invocations whose status `counts` selects.
    pub(super) fn count(&self, counts: impl Fn(Status) -> bool) -> usize {
        let invocations = self.invocations.iter();
        invocations
            .filter(|invocation| counts(invocation.status))
            .count()
    }

    /// Returns the number of failed invocations, as `MaxErrors` counts them.
    pub(super) fn errors(&self) -> usize {
        self.count(|status| status.is_final() && status != Status::Success)
    }

    /// Reads a limit such as `50` or `100%` of the command's targets.
    pub(super) fn limit(&self, text: &str) -> usize {
        let targets = self.invocations.len();
        match text.strip_suffix('%') {
            Some(percent) => percent.parse::<usize>().unwrap_or(100) * targets / 100,
            None => text.parse().unwrap_or(targets),
        }
    }

    /// Returns the invocation on an instance, or `None` if there is none.
    pub(super) fn invocation(&mut self, instance: &str) -> Option<&mut Invocation> {
        let mut invocations = self.invocations.iter_mut();
        invocations.find(|invocation| invocation.instance == instance)
    }

    /// Returns the command as the API shows it.
    pub(super) fn json(&self) -> Value {
        let instances: Vec<&String> = self.invocations.iter().map(|one| &one.instance).collect();
        let status = self.status();
        json!({
            "CommandId": self.id,
            "DocumentName": self.document.name,
            "DocumentVersion": "$DEFAULT",
            "Comment": self.comment,
            "ExpiresAfter": seconds(self.expires),
            "Parameters": self.parameters,
            "InstanceIds": instances,
            "Targets": [],
            "RequestedDateTime": seconds(self.requested),
            "Status": status.as_str(),
            "StatusDetails": status.details(),
            "OutputS3BucketName": "",
            "OutputS3KeyPrefix": "",
            "MaxConcurrency": self.max_concurrency,
            "MaxErrors": self.max_errors,
            "TargetCount": instances.len(),
            "CompletedCount": self.count(Status::is_final),
            "ErrorCount": self.count(|status| matches!(status, Status::Failed | Status::ExecutionTimedOut)),
            "DeliveryTimedOutCount": self.count(|status| status == Status::DeliveryTimedOut),
            "ServiceRole": "",
            "NotificationConfig": {"NotificationArn": "", "NotificationEvents": [], "NotificationType": ""},
            "TimeoutSeconds": self.timeout_seconds,
        })
    }

    /// Returns the `detail` of the command's status-change event.
    pub(super) fn event(&self) -> Value {
        json!({
            "command-id": self.id,
            "document-name": self.document.name,
            "expire-after": milliseconds(self.expires),
            "parameters": self.parameters,
            "requested-date-time": milliseconds(self.requested),
            "status": self.status().as_str(),
        })
    }

    /// Returns the `detail` of an invocation's status-change event.
    pub(super) fn invocation_event(&self, instance: &str, status: Status) -> Value {
        json!({
            "command-id": self.id,
            "document-name": self.document.name,
            "instance-id": instance,
            "requested-date-time": milliseconds(self.requested),
            "status": status.as_str(),
        })
    }
}

/// Returns a time as JSON 1.1 has it: seconds since 1970, with a fraction.
#[expect(
    clippy::cast_precision_loss,
    reason = "a double holds milliseconds since 1970 exactly"
)]
pub(super) fn seconds(time: OffsetDateTime) -> f64 {
    (time.unix_timestamp_nanos() / 1_000_000) as f64 / 1000.0
}
