//! The ids by which a log line names the objects that it concerns.

use crate::id::{ApplicationName, BackupId, CommandId, InstanceId};

/// The ids that a failure concerns, as far as they are known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Subject<'a> {
    /// The application.
    pub application: Option<&'a ApplicationName>,
    /// The Auto Scaling group.
    pub group: Option<&'a str>,
    /// The instance.
    pub instance_id: Option<&'a InstanceId>,
    /// The SSM command.
    pub command_id: Option<&'a CommandId>,
    /// The backup.
    pub backup_id: Option<&'a BackupId>,
}

impl<'a> Subject<'a> {
    /// Returns a subject with the application and no other id.
    pub fn application(application: &'a ApplicationName) -> Self {
        Self {
            application: Some(application),
            ..Self::default()
        }
    }
}
