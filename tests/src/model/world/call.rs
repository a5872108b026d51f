//! The calls that the functions make to AWS.
//!
//! An invocation is its next call: it reads and decides in one step, and may end before that call is made.

use super::command::Purpose;
use super::numbers::{BackupNumber, CommandNumber, NodeNumber, RunNumber};

/// The next call of an invocation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// Send the backup document.
    SendBackup {
        /// The instance.
        node: NodeNumber,
        /// The backup.
        backup: BackupNumber,
        /// The backup's purpose.
        purpose: Purpose,
    },
    /// Read the index that a command's report names, and check every object.
    CheckObjects {
        /// The command.
        command: CommandNumber,
        /// The attempt that its report names.
        run: RunNumber,
    },
    /// Write the manifest, unless it exists.
    PutManifest {
        /// The command.
        command: CommandNumber,
        /// The attempt that the manifest names.
        run: RunNumber,
        /// Whether the manifest goes to the quarantine.
        quarantined: bool,
    },
    /// Write the manifest of an accepted backup to the committed manifests.
    PutAcceptedManifest {
        /// The backup.
        backup: BackupNumber,
    },
    /// Delete the quarantined manifest of an accepted backup.
    DeleteQuarantined {
        /// The backup.
        backup: BackupNumber,
    },
    /// Write the application's parameter, unless it exists.
    WriteParameter {
        /// The command whose backup was committed, or `None` if a tick repairs the parameter.
        command: Option<CommandNumber>,
    },
    /// List the backups and select the expired ones.
    ListExpired,
    /// Delete the manifests of expired backups.
    DeleteManifests {
        /// The backups.
        backups: Vec<BackupNumber>,
    },
    /// Delete the objects of expired backups.
    DeleteObjects {
        /// The backups.
        backups: Vec<BackupNumber>,
    },
    /// Answer the terminate hook.
    AnswerTerminateHook {
        /// The instance.
        node: NodeNumber,
        /// The result of its final backup.
        result: FinalResult,
    },
    /// Log that an instance's newest rows may be lost.
    LogLoss {
        /// The instance.
        node: NodeNumber,
    },
    /// Send the backup document for a final backup.
    SendFinalBackup {
        /// The instance.
        node: NodeNumber,
    },
    /// Cancel the command of a final backup that no agent has taken.
    CancelFinalBackup {
        /// The command.
        command: CommandNumber,
    },
    /// List the backups and read their manifests.
    ChooseBackup {
        /// The instance.
        node: NodeNumber,
        /// The predecessor that was still terminating when the fence timed out.
        fence_broken_by: Option<NodeNumber>,
    },
    /// Send the restore document.
    SendRestore {
        /// The instance.
        node: NodeNumber,
        /// The candidates, newest first.
        candidates: Vec<BackupNumber>,
        /// Whether a newer manifest was skipped, or the fence timed out.
        has_gaps: bool,
    },
    /// Log what a restore lacks: a manifest that was skipped, or a predecessor's newest rows.
    LogGaps {
        /// The instance that is being restored.
        node: NodeNumber,
    },
    /// Record that a failed launch trips the breaker.
    TripBreaker {
        /// The instance that failed.
        node: NodeNumber,
        /// How many times in a row the breaker has tripped.
        trips: u8,
    },
    /// Suspend the group's launches.
    SuspendLaunches {
        /// The instance that failed.
        node: NodeNumber,
    },
    /// Resume the group's launches.
    ResumeLaunches {
        /// The reason.
        resumption: Resumption,
    },
    /// Record that the launches were resumed.
    RecordBreaker {
        /// The reason.
        resumption: Resumption,
    },
    /// List the backups again: one may have been committed while the instance was being restored.
    CheckAdmission {
        /// The instance.
        node: NodeNumber,
        /// The backup that was restored, or `None` after a first boot.
        restored: Option<BackupNumber>,
        /// Whether the command's report names a skipped backup.
        reports_skipped: bool,
    },
    /// Answer the launch hook with CONTINUE.
    Admit {
        /// The instance.
        node: NodeNumber,
        /// Whether the command's report names a skipped backup, which is logged with the admission.
        reports_skipped: bool,
    },
    /// Answer the launch hook with ABANDON.
    Abandon {
        /// The instance.
        node: NodeNumber,
    },
    /// Log why an instance was abandoned.
    LogAbandoned {
        /// The instance.
        node: NodeNumber,
    },
}

impl Call {
    /// Returns whether the call writes a new backup's manifest.
    pub fn is_put(&self) -> bool {
        matches!(self, Self::PutManifest { .. })
    }
}

/// The reason why the group's launches are resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resumption {
    /// A trial launch.
    Trial,
    /// An instance is about to be admitted.
    Success {
        /// The instance.
        node: NodeNumber,
        /// Whether the command's report names a skipped backup.
        reports_skipped: bool,
    },
}

/// The result of a final backup, as its terminate hook needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FinalResult {
    /// The backup is committed or quarantined.
    Committed,
    /// There was nothing to save.
    NothingToSave,
    /// The backup failed, and the failure is logged already.
    Failed,
    /// The command was cancelled; the loss is logged with the hook's answer.
    Cancelled,
    /// No backup could be taken; the loss is logged with the hook's answer.
    GivenUp,
}
