//! The state of the model: what AWS and the nodes hold, in small numbers instead of names, so that millions fit.
//!
//! Times are not counted. What a decision compares with a limit is a stage that a step of its own moves on, at any
//! moment: so every order of such moments is looked at, also those that the timing budget rules out.

mod node;

use std::collections::BTreeMap;

use shared::report::ExitCode;

pub use self::node::{Agent, Data, Node, Process, Stage, Standing, Waited};

/// The number of an instance, in the order of launches.
pub type NodeNumber = u8;
/// The number of a command, in the order in which they were sent.
pub type CommandNumber = u8;
/// The number of an attempt at a backup: its run id.
pub type RunNumber = u8;
/// The number of a backup, in the order of their ids.
pub type BackupNumber = u8;

/// Everything that the promises are about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// The instances that were ever launched.
    pub nodes: Vec<Node>,
    /// The commands that were ever sent.
    pub commands: Vec<Command>,
    /// What was put below `backups/`.
    pub runs: Vec<Run>,
    /// The manifests: which run each commits.
    pub manifests: BTreeMap<BackupNumber, Manifest>,
    /// The manifests that are kept aside: which run each names.
    pub aside: BTreeMap<BackupNumber, RunNumber>,
    /// Whether the application's parameter says that there were backups.
    pub parameter: bool,
    /// Whether the group's launches are suspended.
    pub suspended: bool,
    /// What is remembered of the group's breaker.
    pub breaker: Option<Breaker>,
    /// How long ago it tripped.
    pub tripped: Tripped,
    /// How many launches followed each other without a success, or a pause of the breaker.
    pub launches_in_row: u8,
    /// The functions' invocations between two calls; sorted, since their order means nothing.
    pub calls: Vec<super::calls::Call>,
    /// The number of the next backup that is named.
    pub next_backup: BackupNumber,
    /// The backup that the newest tick names; its event may come at any time until the next tick, and again.
    pub tick: Option<BackupNumber>,
    /// What may still happen.
    pub left: Left,
    /// The promise that was broken on the way here; nothing follows.
    pub broken: Option<super::promises::Promise>,
}

/// How often each thing may still happen that nobody wishes for, or that would go on for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Left {
    /// Ticks of the schedule.
    pub ticks: u8,
    /// Launches of the group.
    pub launches: u8,
    /// Launches while another member serves.
    pub early_launches: u8,
    /// Members that the group or an operator terminates although they live.
    pub terminations: u8,
    /// Living members that the group holds to be unhealthy, and replaces before it terminates them.
    pub sicknesses: u8,
    /// Commands that can be sent.
    pub commands: u8,
    /// Instances that die without warning.
    pub deaths: u8,
    /// Agents that are killed.
    pub kills: u8,
    /// Commands that SSM delivers a second time.
    pub redeliveries: u8,
    /// Invocations that end between two calls.
    pub crashes: u8,
    /// Moments in which something that lives is too slow: an agent's ping, a command, a hook.
    pub delays: u8,
    /// Commands that fail on the node by themselves.
    pub failures: u8,
    /// Objects and manifests that are damaged.
    pub damages: u8,
    /// Nodes that an operator adopts.
    pub adoptions: u8,
    /// Databases that lose most of their rows.
    pub emptyings: u8,
    /// Backups that an operator takes out of quarantine.
    pub acceptances: u8,
}

/// What an operation came to on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A backup is complete in S3.
    BackedUp(RunNumber),
    /// The candidate with this number was restored; those before it were skipped.
    Restored {
        /// The backup.
        backup: BackupNumber,
        /// How many newer ones were skipped.
        skipped: u8,
    },
    /// The application was started empty.
    FirstBoot,
    /// The node was restored already.
    AlreadyRestored {
        /// The backup that its data are from; none where it was started empty.
        backup: Option<BackupNumber>,
        /// How many newer ones were skipped.
        skipped: u8,
    },
    /// It failed.
    Failed(ExitCode),
}

/// An SSM command to one instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Command {
    /// Where.
    pub node: NodeNumber,
    /// What.
    pub ask: Ask,
    /// Where it stands.
    pub status: Status,
    /// Whether no agent took it in time.
    pub overdue: bool,
    /// Whether the commit window has passed since.
    pub late: bool,
}

/// What a command asks of the node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ask {
    /// A restore from one of these, newest first; from none, a first boot.
    Restore(Vec<BackupNumber>),
    /// A backup.
    Backup {
        /// Its name.
        backup: BackupNumber,
        /// Why.
        purpose: Purpose,
    },
}

/// Why a backup is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// The schedule asked for it.
    Scheduled,
    /// The instance leaves.
    Final,
    /// An operator takes the node under protection.
    Adopt,
}

/// Where a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Not delivered.
    Pending,
    /// Delivered; the process may be dead.
    Running,
    /// It ended with this report.
    Ended(Outcome),
    /// SSM gave it up while it ran.
    TimedOut,
    /// SSM never got it to the agent.
    Undelivered,
    /// It was cancelled before it was delivered.
    Cancelled,
}

impl Status {
    /// Tells whether nothing more will come of it.
    pub fn is_finished(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }
}

/// What one attempt at a backup put into S3.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and every combination occurs"
)]
pub struct Run {
    /// The backup.
    pub backup: BackupNumber,
    /// Where it was taken.
    pub node: NodeNumber,
    /// Why.
    pub purpose: Purpose,
    /// What the databases really held.
    pub data: Data,
    /// The newer backups that were skipped when its node was restored.
    pub skipped: Vec<BackupNumber>,
    /// Whether most rows were gone.
    pub emptied: bool,
    /// Whether the index, and with it every object, is there.
    pub complete: bool,
    /// Whether every object is what was written.
    pub sound: bool,
    /// Whether the agent remembers that it took it.
    pub remembered: bool,
}

/// A committed backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Manifest {
    /// What it commits.
    pub run: RunNumber,
    /// Whether it can be read.
    pub readable: bool,
}

/// What is remembered of the group's breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Breaker {
    /// Rekindle suspended the launches, or is about to.
    Open {
        /// How often in a row.
        trips: u8,
        /// The instance whose failure was the last straw.
        node: NodeNumber,
    },
    /// The launches were resumed to try one.
    HalfOpen {
        /// How often in a row the breaker had tripped.
        trips: u8,
        /// How many instances had been launched by then.
        launched: NodeNumber,
    },
    /// What failed before this many instances had been launched does not count any more.
    Closed {
        /// So many.
        launched: NodeNumber,
    },
}

/// How long ago a breaker tripped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tripped {
    /// Its suspension may still be on its way.
    JustNow,
    /// A while ago.
    Settled,
    /// It is time to try a launch.
    Due,
}

impl World {
    /// Returns how many instances were ever launched.
    pub fn launched(&self) -> NodeNumber {
        NodeNumber::try_from(self.nodes.len()).unwrap_or(NodeNumber::MAX)
    }

    /// Returns an instance.
    pub fn node(&self, node: NodeNumber) -> &Node {
        &self.nodes[usize::from(node)]
    }

    /// Returns an instance, to be changed.
    pub fn node_mut(&mut self, node: NodeNumber) -> &mut Node {
        &mut self.nodes[usize::from(node)]
    }

    /// Returns a command.
    pub fn command(&self, command: CommandNumber) -> &Command {
        &self.commands[usize::from(command)]
    }

    /// Returns a command, to be changed.
    pub fn command_mut(&mut self, command: CommandNumber) -> &mut Command {
        &mut self.commands[usize::from(command)]
    }

    /// Returns an attempt at a backup.
    pub fn run(&self, run: RunNumber) -> &Run {
        &self.runs[usize::from(run)]
    }

    /// Returns the instances with their numbers.
    pub fn numbered_nodes(&self) -> impl DoubleEndedIterator<Item = (NodeNumber, &Node)> {
        (0..NodeNumber::MAX).zip(&self.nodes)
    }

    /// Returns the commands with their numbers.
    pub fn numbered_commands(&self) -> impl DoubleEndedIterator<Item = (CommandNumber, &Command)> {
        (0..CommandNumber::MAX).zip(&self.commands)
    }

    /// Tells whether a restore from this backup would pass every check.
    pub fn is_good(&self, backup: BackupNumber) -> bool {
        self.manifests.get(&backup).is_some_and(|manifest| {
            let run = self.run(manifest.run);
            run.complete && run.sound
        })
    }
}
