//! The reasons to abandon an instance.

use std::fmt;

use shared::budget;
use shared::id::{BackupId, CommandId, InstanceId};
use shared::kind::Kind;
use shared::verdict::{Cause, CommandFailure};

/// Why an instance is abandoned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The instance kept its id and lost its disk.
    RootVolumeReplaced,
    /// Another group has the same application.
    ApplicationShared {
        /// The other group.
        with: String,
    },
    /// The SSM agent never registered.
    AgentNeverCame,
    /// The SSM agent registered, then did not accept commands.
    AgentLost,
    /// Another member of the group is in service and does not terminate.
    PredecessorActive {
        /// The member.
        instance_id: InstanceId,
    },
    /// The application had backups, but the bucket has none.
    BackupsGone,
    /// It is unknown whether there are backups.
    BackupsUnknown {
        /// The error of the failed call.
        problem: String,
    },
    /// A newer version of Rekindle made the newest backup.
    NewerSchema {
        /// The backup.
        backup_id: BackupId,
        /// Why its manifest cannot be read.
        problem: String,
    },
    /// No manifest can be read.
    NoReadableManifest {
        /// The number of manifests that were read.
        looked_at: usize,
        /// Why the newest one cannot be read.
        problem: String,
    },
    /// The restore failed on the node.
    RestoreFailed {
        /// Its command.
        command_id: CommandId,
        /// The failure.
        failure: CommandFailure,
    },
    /// A newer backup was committed during the restore.
    NewerBackup {
        /// The newer backup.
        backup_id: BackupId,
    },
    /// The instance has waited for as long as the timing budget allows.
    HardCap,
}

impl Reason {
    /// Returns the kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::RootVolumeReplaced => Kind::RootVolumeReplaced,
            Self::ApplicationShared { .. } => Kind::ApplicationShared,
            Self::AgentNeverCame => Kind::AgentNeverCame,
            Self::AgentLost => Kind::AgentLost,
            Self::PredecessorActive { .. } => Kind::PredecessorActive,
            Self::BackupsGone => Kind::BackupsGone,
            Self::BackupsUnknown { .. } => Kind::BackupsUnknown,
            Self::NewerSchema { .. } => Kind::NewerSchema,
            Self::NoReadableManifest { .. } => Kind::NoReadableManifest,
            Self::RestoreFailed { failure, .. } => failure.kind(),
            Self::NewerBackup { .. } => Kind::NewerBackup,
            Self::HardCap => Kind::HardCap,
        }
    }

    /// Returns whether the next instance would fail for the same reason until somebody changes something.
    pub fn permanent(&self) -> bool {
        match self {
            Self::ApplicationShared { .. }
            | Self::BackupsGone
            | Self::BackupsUnknown { .. }
            | Self::NewerSchema { .. }
            | Self::NoReadableManifest { .. } => true,
            Self::RestoreFailed { failure, .. } => match failure.cause {
                Cause::Agent(exit_code) => exit_code.permanent(),
                Cause::Command(_) | Cause::Contract => false,
            },
            // A new instance has a new volume and a new SSM agent, its predecessor may be gone, and its backup is
            // chosen again.
            Self::RootVolumeReplaced
            | Self::AgentNeverCame
            | Self::AgentLost
            | Self::PredecessorActive { .. }
            | Self::NewerBackup { .. }
            | Self::HardCap => false,
        }
    }

    /// Returns the failed command, or `None` if no command failed.
    pub fn command_id(&self) -> Option<&CommandId> {
        match self {
            Self::RestoreFailed { command_id, .. } => Some(command_id),
            _ => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RootVolumeReplaced => f.write_str(
                "the root volume was replaced, so the instance has the same id but not its data",
            ),
            Self::ApplicationShared { with } => {
                write!(f, "the group {with} has the same application")
            }
            Self::AgentNeverCame => write!(
                f,
                "the SSM agent did not register within {} seconds of the launch",
                budget::SSM_READY
            ),
            Self::AgentLost => write!(
                f,
                "the SSM agent registered, but does not accept commands {} seconds after the launch",
                budget::SSM_READY + budget::FENCE
            ),
            Self::PredecessorActive { instance_id } => write!(
                f,
                "{instance_id} is still healthy and in service {} seconds after the launch",
                budget::FENCE
            ),
            Self::BackupsGone => {
                f.write_str("the application had backups, but the bucket has no manifest of it")
            }
            Self::BackupsUnknown { problem } => {
                write!(f, "cannot list the application's backups: {problem}")
            }
            Self::NewerSchema { backup_id, problem } => {
                write!(f, "cannot read the newest backup {backup_id}: {problem}")
            }
            Self::NoReadableManifest { looked_at, problem } => write!(
                f,
                "cannot read any of the {looked_at} newest manifests; the newest: {problem}"
            ),
            Self::RestoreFailed { failure, .. } => f.write_str(&failure.message),
            Self::NewerBackup { backup_id } => write!(
                f,
                "the backup {backup_id} was committed during the restore of an older one"
            ),
            Self::HardCap => write!(
                f,
                "the launch has not ended {} seconds after its start",
                budget::HARD_CAP
            ),
        }
    }
}
