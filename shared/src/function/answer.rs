//! The parts that the answers of both functions share. Every answer is one JSON object with `outcome`, in kebab-case.

use serde::Serialize;

use crate::id::{ApplicationName, BackupId, CommandId, InstanceId};

/// The result for one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Handled {
    /// The application, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<ApplicationName>,
    /// The instance.
    pub instance_id: InstanceId,
    /// The backup that was committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_id: Option<BackupId>,
    /// The command that was sent, or that has ended and was handled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_id: Option<CommandId>,
    /// What was decided or done, in kebab-case. The log may have several decisions for it.
    pub decision: &'static str,
    /// The reason or the consequence, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Handled {
    /// Returns a result without optional fields.
    pub fn new(
        application: Option<&ApplicationName>,
        instance_id: &InstanceId,
        decision: &'static str,
    ) -> Self {
        Self {
            application: application.cloned(),
            instance_id: instance_id.clone(),
            backup_id: None,
            command_id: None,
            decision,
            message: None,
        }
    }
}

/// The answer if nothing was done and a retry would not help. The log has the same failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The application, if the event names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<ApplicationName>,
    /// The kind of failure, as in the log.
    pub kind: &'static str,
    /// The reason: the error and its causes.
    pub reason: String,
    /// The action that an operator takes.
    pub remedy: &'static str,
}
