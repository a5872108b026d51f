//! The answers to requests about one backup.

use shared::Error;
use shared::id::{ApplicationName, BackupId};
use tracing::info;

use crate::answer::Answer;

/// Returns the refusal of a request for a backup that does not exist.
pub(super) fn unknown(application: &ApplicationName, backup: &BackupId) -> Error {
    Error::Refused(format!(
        "the application {application} has no backup {backup}; send list-backups to see those it has"
    ))
}

/// Logs a request about one backup and returns its answer.
pub(super) fn done(
    application: &ApplicationName,
    backup: &BackupId,
    decision: &'static str,
    message: &'static str,
) -> Answer {
    info!(%application, backup_id = %backup, decision, "{message}");
    Answer::Done {
        application: application.clone(),
        backup_id: backup.clone(),
        decision,
        message,
    }
}
