//! The function's answers: one JSON object with `outcome`, for operators and for tests.

use serde::Serialize;
use shared::command::Purpose;
use shared::function::answer::{Handled, Refused};
use shared::id::{ApplicationName, BackupId, CommandId, InstanceId};
use shared::manifest::SkippedDatabase;
use time::OffsetDateTime;

/// The result of one invocation.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// A tick.
    Tick {
        /// The backups that were requested.
        started: Vec<Started>,
        /// The groups without a new backup.
        skipped: Vec<Skipped>,
        /// One entry for each command that this tick finished because its event was lost.
        handled: Vec<Handled>,
        /// The number of failures that this tick logged.
        failures: usize,
    },
    /// A sweep.
    Sweep {
        /// One entry for each command or terminate hook that this sweep handled because its event was lost.
        handled: Vec<Handled>,
        /// The number of failures that this sweep logged.
        failures: usize,
    },
    /// A finished backup command, or an instance in the terminate hook.
    Handled(Handled),
    /// A backup that an operator requested was sent.
    Requested(Started),
    /// An application's newest backups.
    Backups {
        /// The application.
        application: ApplicationName,
        /// Newest first.
        backups: Vec<Summary>,
    },
    /// An operator's request about one backup is done.
    Done {
        /// The application.
        application: ApplicationName,
        /// The backup.
        backup_id: BackupId,
        /// The decision, in kebab-case, as in the log.
        decision: &'static str,
        /// The decision as a text for the operator.
        message: &'static str,
    },
    /// Nothing was done.
    Refused(Refused),
}

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// A backup that was requested from a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Started {
    /// The application.
    pub(crate) application: ApplicationName,
    /// The instance.
    pub(crate) instance_id: InstanceId,
    /// The id of the new backup.
    pub(crate) backup_id: BackupId,
    /// The command that requests it.
    pub(crate) command_id: CommandId,
}

/// A group in which a tick started no backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Skipped {
    /// The group.
    pub(crate) group: String,
    /// The reason.
    pub(crate) reason: String,
}

/// The exceptions of a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ExceptionsOf {
    /// The number of exceptions, `None` if their object is unreadable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) count: Option<usize>,
    /// The key of their object.
    pub(crate) key: String,
}

/// One backup in a listing.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Summary {
    /// A backup with a readable manifest.
    Backup {
        /// The backup.
        backup_id: BackupId,
        /// The purpose of the backup.
        purpose: Purpose,
        /// When it was committed or quarantined.
        #[serde(with = "time::serde::rfc3339")]
        committed_at: OffsetDateTime,
        /// Rows in its counted tables.
        rows: u64,
        /// Its bytes in S3.
        bytes: u64,
        /// The instance that it was taken from.
        instance_id: InstanceId,
        /// Whether retention never deletes it.
        pinned: bool,
        /// The reason for its quarantine, `None` for a committed backup.
        #[serde(skip_serializing_if = "Option::is_none")]
        quarantined_for: Option<String>,
        /// The databases that it does not contain because they were closed, or dropped meanwhile.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        skipped_databases: Vec<SkippedDatabase>,
        /// The exceptions of the newest restore of it that had any, `None` if there was none.
        #[serde(skip_serializing_if = "Option::is_none")]
        exceptions: Option<ExceptionsOf>,
    },
    /// A backup with an unreadable manifest.
    Unreadable {
        /// The backup.
        backup_id: BackupId,
        /// The defect of its manifest.
        problem: String,
    },
}
