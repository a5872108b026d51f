//! An instance: its lifecycle state, its agent in SSM, its disk, and the agent's processes.

use super::command::AgentOutcome;
use super::numbers::{BackupNumber, CommandNumber, RunNumber};

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the flags are independent, and every combination occurs"
)]
pub struct Node {
    /// Its lifecycle state.
    pub lifecycle: Lifecycle,
    /// Whether the group considers it healthy.
    pub healthy: bool,
    /// Whether the machine is running.
    pub alive: bool,
    /// The state of its agent in SSM.
    pub agent: Agent,
    /// How long it has been in its launch hook.
    pub waited: LaunchWait,
    /// Where its databases' data came from.
    pub data: Data,
    /// The `restored` marker.
    pub marker: Option<Data>,
    /// The agent's record of the launch restore.
    pub launch_record: Option<AgentOutcome>,
    /// The agent's record of the final backup.
    pub final_record: Option<AgentOutcome>,
    /// The agent's processes, in the order of their commands.
    pub processes: Vec<Process>,
    /// The newer backups that were skipped when it was restored.
    pub skipped: Vec<BackupNumber>,
    /// Whether its databases have lost most of their rows.
    pub emptied: bool,
    /// Whether its launch hook was answered with CONTINUE.
    pub admitted: bool,
    /// Whether it was ever in service with the application's data: restored, started empty on purpose, or adopted.
    pub served: bool,
    /// Whether the possible loss of its data, or the reason why it was abandoned, was reported.
    pub reported: bool,
}

/// The lifecycle state of an instance in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lifecycle {
    /// In the launch hook.
    Launching,
    /// In service.
    InService,
    /// In the terminate hook.
    Terminating,
    /// The terminate hook is answered; the instance is still a member.
    Proceeding,
    /// No longer a member. The machine may still be running for a while.
    Gone,
}

/// The state of an instance's agent in SSM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Agent {
    /// The agent never registered.
    Unregistered,
    /// The agent answered its last ping, up to minutes ago.
    Online,
    /// The agent did not answer its last ping.
    Lost,
}

/// The limits of the launch's timing budget that have passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LaunchWait {
    /// No limit has passed.
    Short,
    /// `SSM_READY`, the limit for the agent's registration, has passed.
    PastReady,
    /// `FENCE` has passed.
    PastFence,
    /// The sum of both has passed.
    PastReadyAndFence,
    /// `HARD_CAP` has passed.
    PastHardCap,
}

/// Where a database's data came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Data {
    /// A fresh cluster: never restored.
    Unrestored,
    /// The application was started empty.
    FirstBoot,
    /// A backup, and everything written since.
    FromBackup(BackupNumber),
    /// An operator set the node up by hand.
    HandMade,
    /// A backup that was not verified: it may differ from the committed one.
    Unverified,
}

impl Data {
    /// Returns the backup that the data came from, or `None` if it did not come from a backup.
    pub fn backup(self) -> Option<BackupNumber> {
        match self {
            Self::FromBackup(backup) => Some(backup),
            Self::Unrestored | Self::FirstBoot | Self::HandMade | Self::Unverified => None,
        }
    }
}

/// A process of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    /// The command that it was started for.
    pub command: CommandNumber,
    /// Its progress.
    pub stage: Stage,
}

/// The progress of an agent's process. It may be killed between two stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Another process holds the host's lock.
    AwaitingLock,
    /// The restore or first boot has not changed any live data yet.
    Restoring,
    /// The objects are being uploaded.
    Uploading(RunNumber),
    /// The data is in place; the `restored` marker is not written yet.
    WritingMarker(AgentOutcome),
    /// The work is done; its outcome is not recorded yet.
    Recording(AgentOutcome),
    /// The final backup is recorded; the node is not decommissioned yet.
    Decommissioning(AgentOutcome),
    /// The report is not printed yet.
    Reporting(AgentOutcome),
}

impl Stage {
    /// Returns whether the process holds the host's lock.
    pub fn holds_lock(self) -> bool {
        matches!(
            self,
            Self::Restoring | Self::Uploading(_) | Self::WritingMarker(_) | Self::Recording(_)
        )
    }
}

impl Node {
    /// Returns an instance that has just been launched.
    pub fn launched() -> Self {
        Self {
            lifecycle: Lifecycle::Launching,
            healthy: true,
            alive: true,
            agent: Agent::Unregistered,
            waited: LaunchWait::Short,
            data: Data::Unrestored,
            marker: None,
            launch_record: None,
            final_record: None,
            processes: Vec::new(),
            skipped: Vec::new(),
            emptied: false,
            admitted: false,
            served: false,
            reported: false,
        }
    }

    /// Returns whether the instance is a member of its group.
    pub fn is_member(&self) -> bool {
        self.lifecycle != Lifecycle::Gone
    }
}
