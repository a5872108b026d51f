//! The state of the model: everything that AWS and the nodes hold.
//!
//! The model has no clock. A limit that a decision compares a time with is a stage, and a step moves to the next stage at
//! any moment. The checker therefore visits every order of such moments, including orders that the timing budget rules out.

mod backup;
mod breaker;
mod budget;
mod call;
mod command;
pub(super) mod names;
mod node;
mod numbers;
mod promise;

use std::collections::BTreeMap;

pub use self::backup::{Manifest, Run};
pub use self::breaker::{Breaker, TripAge};
pub use self::budget::Budget;
pub use self::call::{Call, FinalResult, Resumption};
pub use self::command::{AgentOutcome, Command, Purpose, Request, Status};
pub use self::node::{Agent, Data, LaunchWait, Lifecycle, Node, Process, Stage};
pub use self::numbers::{BackupNumber, CommandNumber, NodeNumber, RunNumber};
pub use self::promise::Promise;

/// A state of the model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// Every instance that was launched.
    pub nodes: Vec<Node>,
    /// Every command that was sent.
    pub commands: Vec<Command>,
    /// Every backup attempt.
    pub runs: Vec<Run>,
    /// The committed manifests.
    pub manifests: BTreeMap<BackupNumber, Manifest>,
    /// The quarantined manifests: the attempt that each names.
    pub quarantined: BTreeMap<BackupNumber, RunNumber>,
    /// Whether the application's parameter exists: it records that there were backups.
    pub parameter: bool,
    /// Whether the group's launches are suspended.
    pub suspended: bool,
    /// The circuit breaker's record.
    pub breaker: Option<Breaker>,
    /// How long ago the breaker tripped.
    pub tripped: TripAge,
    /// How many launches were made since the last success or the breaker's last pause.
    pub launches_in_row: u8,
    /// The next call of each invocation, sorted because their order has no meaning.
    pub calls: Vec<Call>,
    /// The number of the next backup.
    pub next_backup: BackupNumber,
    /// The backup of the newest tick. Its event may be delivered any number of times until the next tick.
    pub tick: Option<BackupNumber>,
    /// How often each fault may still happen.
    pub budget: Budget,
    /// The promise that was broken on the way to this state. No step follows.
    pub broken: Option<Promise>,
}

impl World {
    /// Returns how many instances were launched.
    pub fn launched(&self) -> NodeNumber {
        NodeNumber::try_from(self.nodes.len()).unwrap_or(NodeNumber::MAX)
    }

    /// Returns an instance.
    pub fn node(&self, node: NodeNumber) -> &Node {
        &self.nodes[usize::from(node)]
    }

    /// Returns an instance for modification.
    pub fn node_mut(&mut self, node: NodeNumber) -> &mut Node {
        &mut self.nodes[usize::from(node)]
    }

    /// Returns a command.
    pub fn command(&self, command: CommandNumber) -> &Command {
        &self.commands[usize::from(command)]
    }

    /// Returns a command for modification.
    pub fn command_mut(&mut self, command: CommandNumber) -> &mut Command {
        &mut self.commands[usize::from(command)]
    }

    /// Returns a backup attempt.
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

    /// Returns whether a restore from this backup would pass every check.
    pub fn is_good(&self, backup: BackupNumber) -> bool {
        self.manifests.get(&backup).is_some_and(|manifest| {
            let run = self.run(manifest.run);
            run.complete && run.sound
        })
    }

    /// Returns whether a command requests a final backup.
    pub fn is_final(&self, command: CommandNumber) -> bool {
        matches!(
            self.command(command).request,
            Request::Backup {
                purpose: Purpose::Final,
                ..
            }
        )
    }

    /// Returns whether a backup has a manifest, committed or quarantined.
    pub fn has_manifest(&self, backup: BackupNumber) -> bool {
        self.manifests.contains_key(&backup) || self.quarantined.contains_key(&backup)
    }
}
