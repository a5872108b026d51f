//! Why an instance is abandoned, in words: what happened, the stable kind, and the remedy.

use std::fmt;

use shared::aws::ssm::CommandEnd;
use shared::budget;
use shared::id::{BackupId, CommandId, InstanceId};

use crate::attempt::{Cause, Failure};

/// Why an instance is abandoned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The instance kept its id and lost its disk, which is not supported.
    RootVolumeReplaced,
    /// Another group has the same application, and two nodes would share one truth.
    ApplicationShared {
        /// The other group.
        with: String,
    },
    /// The SSM agent never registered.
    AgentNeverCame,
    /// The SSM agent registered and was lost.
    AgentLost,
    /// Another member of the group serves, and does not leave.
    PredecessorActive {
        /// The member.
        instance_id: InstanceId,
    },
    /// The application has had backups, and the bucket has none.
    BackupsGone,
    /// It cannot be said whether there are backups.
    BackupsUnknown {
        /// What went wrong.
        problem: String,
    },
    /// The newest backup was made by a newer Rekindle.
    NewerSchema {
        /// The backup.
        backup_id: BackupId,
        /// What its manifest says.
        problem: String,
    },
    /// There are backups, and no manifest that can be read.
    NoReadableManifest {
        /// How many were looked at.
        looked_at: usize,
        /// What is wrong with the newest.
        problem: String,
    },
    /// The restore failed on the node.
    RestoreFailed {
        /// Its command.
        command_id: CommandId,
        /// What became of it.
        failure: Failure,
    },
    /// A newer backup was committed while the restore was under way.
    NewerBackup {
        /// The newer backup.
        backup_id: BackupId,
    },
    /// The instance has been kept waiting for as long as the budget allows.
    HardCap,
}

impl Reason {
    /// Returns the stable word: the `kind` of the failure metric.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RootVolumeReplaced => "RootVolumeReplaced",
            Self::ApplicationShared { .. } => "ApplicationShared",
            Self::AgentNeverCame => "AgentNeverCame",
            Self::AgentLost => "AgentLost",
            Self::PredecessorActive { .. } => "PredecessorActive",
            Self::BackupsGone => "BackupsGone",
            Self::BackupsUnknown { .. } => "BackupsUnknown",
            Self::NewerSchema { .. } => "NewerSchema",
            Self::NoReadableManifest { .. } => "NoReadableManifest",
            Self::RestoreFailed { failure, .. } => match failure.cause {
                Cause::Agent(exit_code) => exit_code.word(),
                Cause::Command(end) => end.kind(),
                Cause::Contract => "Contract",
            },
            Self::NewerBackup { .. } => "NewerBackup",
            Self::HardCap => "HardCap",
        }
    }

    /// Tells whether the next instance would be abandoned for the same reason until somebody changes something.
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
            // A fresh instance has a fresh volume, may find a predecessor gone and an agent there, and chooses anew.
            Self::RootVolumeReplaced
            | Self::AgentNeverCame
            | Self::AgentLost
            | Self::PredecessorActive { .. }
            | Self::NewerBackup { .. }
            | Self::HardCap => false,
        }
    }

    /// Returns what an operator does about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::RootVolumeReplaced => {
                "Refresh instances by replacing them; the ReplaceRootVolume strategy is not supported."
            }
            Self::ApplicationShared { .. } => {
                "Give each group a rekindle:application tag of its own, or empty the other group first."
            }
            Self::AgentNeverCame => {
                "Check that the image starts the SSM agent, that its role has AmazonSSMManagedInstanceCore, and that its subnet reaches SSM."
            }
            Self::AgentLost => {
                "Read the instance's console output: it stopped answering after it had registered with SSM."
            }
            Self::PredecessorActive { .. } => {
                "Let the group terminate before it launches: a maximum size of 1, an instance maintenance policy of 0 % to 100 % healthy, and the process AZRebalance suspended where there is no such policy."
            }
            Self::BackupsGone => {
                "Point REKINDLE_BUCKET to the bucket that has this application's backups, or bring them back from its noncurrent versions. Only to begin anew, empty: delete the parameter /rekindle/<application>."
            }
            Self::BackupsUnknown { .. } => {
                "Correct REKINDLE_BUCKET, or the restore function's access to manifests/ and to the parameter /rekindle/<application>."
            }
            Self::NewerSchema { .. } => {
                "Deploy the newer version of Rekindle again: an older backup would lose data that it can restore."
            }
            Self::NoReadableManifest { .. } => {
                "Look at the newest objects below manifests/<application>/: their noncurrent versions may still be whole."
            }
            Self::RestoreFailed { failure, .. } => match failure.cause {
                Cause::Agent(exit_code) => exit_code.remedy(),
                Cause::Command(CommandEnd::TimedOut) => {
                    "SSM says so too of an agent that was killed: look at the node's memory first, then at how large the \
                     database has grown."
                }
                Cause::Command(CommandEnd::Cancelled) => {
                    "Nothing, if an operator cancelled the command; its replacement restores anew."
                }
                Cause::Command(CommandEnd::Undeliverable) => {
                    "Check that the restore function may send the restore document to this instance, and that the image is Linux."
                }
                Cause::Command(CommandEnd::Failed) => {
                    "Read the command's output in SSM: it did not end as the agent ends."
                }
                Cause::Contract => "Deploy functions and agent from the same version.",
            },
            Self::NewerBackup { .. } => {
                "The next launch restores the newer backup, mostly the final one of an instance whose terminate hook expired: find out what held that up. Send `reject-quarantined` for what this instance itself backs up at its end."
            }
            Self::HardCap => {
                "Find out what kept the restore from ending: the command's output in SSM, the node's log, S3's throughput."
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RootVolumeReplaced => f.write_str(
                "its root volume was replaced, so that the instance keeps its id and lost its data",
            ),
            Self::ApplicationShared { with } => {
                write!(
                    f,
                    "the group {with} has the same application, and two nodes would share one truth"
                )
            }
            Self::AgentNeverCame => write!(
                f,
                "its SSM agent has not registered within {} seconds of the launch",
                budget::SSM_READY
            ),
            Self::AgentLost => write!(
                f,
                "its SSM agent registered, and takes no command {} seconds after the launch",
                budget::SSM_READY + budget::FENCE
            ),
            Self::PredecessorActive { instance_id } => write!(
                f,
                "{instance_id} is healthy and in service still {} seconds after the launch, and two nodes would \
                 serve one application",
                budget::FENCE
            ),
            Self::BackupsGone => f.write_str(
                "this application has had backups, and the bucket holds no manifest of it",
            ),
            Self::BackupsUnknown { problem } => {
                write!(
                    f,
                    "it cannot be told whether this application has backups: {problem}"
                )
            }
            Self::NewerSchema { backup_id, problem } => {
                write!(f, "the newest backup {backup_id} cannot be read: {problem}")
            }
            Self::NoReadableManifest { looked_at, problem } => write!(
                f,
                "none of the {looked_at} newest manifests can be read; the newest: {problem}"
            ),
            Self::RestoreFailed {
                command_id,
                failure,
            } => {
                write!(
                    f,
                    "the restore command {command_id} failed: {}",
                    failure.message
                )
            }
            Self::NewerBackup { backup_id } => write!(
                f,
                "the backup {backup_id} was committed after its restore had begun, and it would serve older data"
            ),
            Self::HardCap => write!(
                f,
                "it has no answer {} seconds after its launch",
                budget::HARD_CAP
            ),
        }
    }
}
