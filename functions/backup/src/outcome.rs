//! What the function answers: small JSON, for the operator's eyes and for the tests.

use serde::Serialize;
use shared::command::Purpose;
use shared::id::{ApplicationName, BackupId, CommandId, InstanceId};
use time::OffsetDateTime;

/// What came of an event.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// A tick: what was started, and what was left alone for which reason.
    Tick {
        /// Backups that were asked for.
        started: Vec<Started>,
        /// Groups that were left alone.
        skipped: Vec<Skipped>,
        /// Backups whose event was lost.
        caught_up: Vec<CaughtUp>,
        /// Failures, each of which is in the log.
        failures: usize,
    },
    /// A sweep: what lost events had left behind.
    Sweep {
        /// Backups and final backups that were seen through.
        caught_up: Vec<CaughtUp>,
        /// Failures, each of which is in the log.
        failures: usize,
    },
    /// A finished backup command, or an instance in the terminate hook.
    Done(CaughtUp),
    /// A backup that an operator asked for is on its way.
    Requested(Started),
    /// An application's newest backups.
    Backups {
        /// The application.
        application: ApplicationName,
        /// Newest first.
        backups: Vec<Summary>,
    },
    /// An operator's word on one backup is carried out.
    Curated {
        /// The application.
        application: ApplicationName,
        /// The backup.
        backup_id: BackupId,
        /// What that means.
        decision: String,
    },
    /// Nothing was done, for a reason that a retry does not change. It is in the log, too.
    Refused {
        /// The word of the failure metric.
        kind: String,
        /// The reason.
        message: String,
    },
}

/// A backup that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Started {
    /// The application.
    pub(crate) application: ApplicationName,
    /// The instance.
    pub(crate) instance_id: InstanceId,
    /// The backup to come.
    pub(crate) backup_id: BackupId,
    /// The command that asks for it.
    pub(crate) command_id: CommandId,
}

/// A group that was left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Skipped {
    /// The group.
    pub(crate) group: String,
    /// The reason.
    pub(crate) reason: String,
}

/// A command or a hook that was looked after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct CaughtUp {
    /// The application, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) application: Option<ApplicationName>,
    /// The instance.
    pub(crate) instance_id: InstanceId,
    /// The backup that was committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) backup_id: Option<BackupId>,
    /// What was decided, in words.
    pub(crate) decision: String,
}

/// One committed backup.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Summary {
    /// What its manifest says.
    Backup {
        /// The backup.
        backup_id: BackupId,
        /// Why it was taken.
        purpose: Purpose,
        /// When it was committed.
        #[serde(with = "time::serde::rfc3339")]
        committed_at: OffsetDateTime,
        /// Rows in its counted tables.
        rows: u64,
        /// Its bytes in S3.
        bytes: u64,
        /// The instance that it was taken from.
        instance_id: InstanceId,
        /// Whether it is kept for ever.
        pinned: bool,
        /// Why it is kept aside, where it is.
        #[serde(skip_serializing_if = "Option::is_none")]
        quarantined_for: Option<String>,
    },
    /// Its manifest cannot be used.
    Unreadable {
        /// The backup.
        backup_id: BackupId,
        /// What is wrong with it.
        problem: String,
    },
}
