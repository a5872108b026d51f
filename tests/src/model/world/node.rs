//! An instance: where it stands in its group, what SSM says of it, its disk, and the agent's processes on it.

use super::{BackupNumber, CommandNumber, Outcome, RunNumber};

/// One instance: where it stands in its group, what SSM says of it, and its disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and every combination occurs"
)]
pub struct Node {
    /// Where it stands in its group.
    pub standing: Standing,
    /// Whether the group holds it to be healthy.
    pub healthy: bool,
    /// Whether the machine runs.
    pub alive: bool,
    /// What SSM says of its agent.
    pub agent: Agent,
    /// How long it has waited in its launch hook.
    pub waited: Waited,
    /// Whose data its databases hold.
    pub data: Data,
    /// The `restored` marker.
    pub marker: Option<Data>,
    /// What the agent remembers of the launch's operation.
    pub launch: Option<Outcome>,
    /// What the agent remembers of the final backup's operation.
    pub last: Option<Outcome>,
    /// The agent's processes, in the order of their commands.
    pub processes: Vec<Process>,
    /// The newer backups that were skipped when it was restored.
    pub skipped: Vec<BackupNumber>,
    /// Whether its databases have lost most of their rows.
    pub emptied: bool,
    /// Whether its launch hook let it into service.
    pub admitted: bool,
    /// Whether it ever was in service as the application's node: restored, started empty on purpose, or adopted.
    pub served: bool,
    /// Whether it has been said aloud that what it held may be lost, or why it was abandoned.
    pub told: bool,
}

/// Where an instance stands in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Standing {
    /// In the launch hook.
    Waiting,
    /// In service.
    Serving,
    /// In the terminate hook.
    Leaving,
    /// Past the terminate hook, and still a member.
    Left,
    /// No member any more. The machine may run on for a while.
    Gone,
}

/// What SSM says of an instance's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Agent {
    /// It never registered.
    Unregistered,
    /// It answered its last ping, which may be minutes ago.
    Online,
    /// It did not.
    Lost,
}

/// The limits of the launch's timing budget that have passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Waited {
    /// None.
    NotLong,
    /// The one for registering with SSM.
    PastReady,
    /// The fence's.
    PastFence,
    /// Both together.
    PastBoth,
    /// The hard cap.
    PastCap,
}

/// Whose data databases hold, or how they came there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Data {
    /// A fresh cluster's: nobody's.
    Nobodys,
    /// An application that was started empty.
    FirstBoot,
    /// A backup's, and what was written since.
    Of(BackupNumber),
    /// A hand-made node's.
    HandMade,
    /// A backup's that was not what was committed.
    Unverified,
}

impl Data {
    /// Returns the backup that they are from.
    pub fn backup(self) -> Option<BackupNumber> {
        match self {
            Self::Of(backup) => Some(backup),
            Self::Nobodys | Self::FirstBoot | Self::HandMade | Self::Unverified => None,
        }
    }
}

/// A process of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    /// What it was started for.
    pub command: CommandNumber,
    /// How far it is.
    pub stage: Stage,
}

/// How far a process of the agent is; it may be killed in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Another process holds the lock of the host.
    AwaitingLock,
    /// It restores or starts empty: nothing live has changed yet.
    Restoring,
    /// The objects are going up.
    Uploading(RunNumber),
    /// The data are where they belong; the marker that says so is not written.
    Marking(Outcome),
    /// All is done; what it came to is not remembered yet.
    Recording(Outcome),
    /// A final backup is remembered; the node does not retire yet.
    Retiring(Outcome),
    /// Its report is not printed yet.
    Reporting(Outcome),
}

impl Stage {
    /// Tells whether the process holds the lock of the host.
    pub fn holds_lock(self) -> bool {
        matches!(
            self,
            Self::Restoring | Self::Uploading(_) | Self::Marking(_) | Self::Recording(_)
        )
    }
}

impl Node {
    /// An instance that was launched just now.
    pub fn launched() -> Self {
        Self {
            standing: Standing::Waiting,
            healthy: true,
            alive: true,
            agent: Agent::Unregistered,
            waited: Waited::NotLong,
            data: Data::Nobodys,
            marker: None,
            launch: None,
            last: None,
            processes: Vec::new(),
            skipped: Vec::new(),
            emptied: false,
            admitted: false,
            served: false,
            told: false,
        }
    }

    /// Tells whether the instance belongs to its group.
    pub fn is_member(&self) -> bool {
        self.standing != Standing::Gone
    }
}
