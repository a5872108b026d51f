//! SSM commands, and how their operations end on the node.

use shared::exit_code::ExitCode;

use super::numbers::{BackupNumber, NodeNumber, RunNumber};

/// How an operation ended on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AgentOutcome {
    /// A backup is complete in S3.
    BackedUp(RunNumber),
    /// A candidate was restored; the newer candidates were skipped.
    Restored {
        /// The backup.
        backup: BackupNumber,
        /// How many newer candidates were skipped.
        skipped: u8,
    },
    /// The application was started empty.
    FirstBoot,
    /// The node was restored by an earlier command.
    AlreadyRestored {
        /// The backup that the node was restored from, or `None` if it was started empty.
        backup: Option<BackupNumber>,
        /// How many newer candidates were skipped.
        skipped: u8,
    },
    /// The operation failed.
    Failed(ExitCode),
}

/// An SSM command to one instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Command {
    /// The instance.
    pub node: NodeNumber,
    /// The request to the agent.
    pub request: Request,
    /// The command's status in SSM.
    pub status: Status,
    /// Whether the time for an agent to take the command has passed.
    pub overdue: bool,
    /// Whether the commit window has passed since the command ended.
    pub late: bool,
}

/// A request to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Request {
    /// A restore from one of these candidates, newest first. An empty list requests a first boot.
    Restore(Vec<BackupNumber>),
    /// A backup.
    Backup {
        /// Its number.
        backup: BackupNumber,
        /// Its purpose.
        purpose: Purpose,
    },
}

/// The purpose of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// A tick requested it.
    Scheduled,
    /// The instance is terminating.
    Final,
    /// An operator adopts the node.
    Adopt,
}

/// The status of a command in SSM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Not delivered yet.
    Pending,
    /// Delivered. The agent's process may be dead.
    Running,
    /// The agent ended and printed this outcome.
    Ended(AgentOutcome),
    /// SSM's execution timeout passed.
    TimedOut,
    /// SSM's delivery timeout passed.
    Undelivered,
    /// The command was cancelled before its delivery.
    Cancelled,
}

impl Status {
    /// Returns whether the status is final.
    pub fn is_finished(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }
}
