//! The functions between two calls to AWS: an invocation that reads, decides, and has its next call before it. It may
//! end there, and anything may happen meanwhile.

use super::world::{BackupNumber, CommandNumber, NodeNumber, Purpose, RunNumber, Standing, World};

/// The next call of an invocation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// Send the backup document.
    SendBackup {
        /// To this instance.
        node: NodeNumber,
        /// For this backup.
        backup: BackupNumber,
        /// Why.
        purpose: Purpose,
    },
    /// Read the index that a command's report names, and look at every object.
    CheckObjects {
        /// The command.
        command: CommandNumber,
        /// What its report names.
        run: RunNumber,
    },
    /// Put the manifest, unless there is one.
    PutManifest {
        /// The command.
        command: CommandNumber,
        /// What is committed.
        run: RunNumber,
        /// Whether it is kept aside.
        aside: bool,
    },
    /// Put a manifest that was kept aside among the committed ones.
    PutAccepted {
        /// Its backup.
        backup: BackupNumber,
    },
    /// Delete it where it was kept aside.
    DropAside {
        /// Its backup.
        backup: BackupNumber,
    },
    /// Put the application's parameter, unless there is one.
    PutParameter {
        /// The command whose backup is committed; none where a tick repairs the parameter.
        command: Option<CommandNumber>,
    },
    /// List the backups, to take away those that nobody needs any more.
    ListExpired,
    /// Delete their manifests.
    DeleteManifests {
        /// The backups.
        backups: Vec<BackupNumber>,
    },
    /// Delete their objects.
    DeleteObjects {
        /// The backups.
        backups: Vec<BackupNumber>,
    },
    /// Answer the terminate hook.
    AnswerLeaving {
        /// The instance's.
        node: NodeNumber,
        /// What its final backup came to.
        last: Last,
    },
    /// Say that an instance's newest rows may be lost.
    TellLoss {
        /// The instance.
        node: NodeNumber,
    },
    /// Send the backup document for a final backup.
    SendFinal {
        /// To this instance.
        node: NodeNumber,
    },
    /// Cancel a final backup that no agent took.
    CancelFinal {
        /// Its command.
        command: CommandNumber,
    },
    /// List the backups and read their manifests.
    ChooseBackup {
        /// For this instance.
        node: NodeNumber,
        /// The predecessor that the fence waits for no longer.
        fence_broken_by: Option<NodeNumber>,
    },
    /// Send the restore document.
    SendRestore {
        /// To this instance.
        node: NodeNumber,
        /// What it may restore, newest first.
        candidates: Vec<BackupNumber>,
        /// Whether a newer manifest was passed over, or a predecessor is waited for no longer.
        concedes: bool,
    },
    /// Say what a restore lacks: a manifest that was passed over, or a predecessor's newest rows.
    TellConcessions {
        /// The instance that is restored.
        node: NodeNumber,
    },
    /// Record that a failed launch trips the breaker.
    TripBreaker {
        /// The instance that failed.
        node: NodeNumber,
        /// How often in a row.
        trips: u8,
    },
    /// Suspend the group's launches.
    SuspendLaunches {
        /// The instance that failed.
        node: NodeNumber,
    },
    /// Resume them.
    ResumeLaunches {
        /// What for.
        resumption: Resumption,
    },
    /// Record it.
    RecordBreaker {
        /// What for.
        resumption: Resumption,
    },
    /// List the backups once more, since one may have been committed while the instance was restored.
    LookAgain {
        /// The instance.
        node: NodeNumber,
        /// The backup that it has.
        restored: Option<BackupNumber>,
        /// As for its admission.
        tells_skipped: bool,
    },
    /// Answer the launch hook: into service.
    Admit {
        /// The instance.
        node: NodeNumber,
        /// Whether the report of the command that made it ready names a backup that was skipped, which is said with the admission.
        tells_skipped: bool,
    },
    /// Answer the launch hook: to be replaced.
    Abandon {
        /// The instance.
        node: NodeNumber,
    },
    /// Say why an instance was abandoned.
    TellAbandoned {
        /// The instance.
        node: NodeNumber,
    },
}

impl Call {
    /// Tells whether a manifest is about to be put.
    pub fn is_put(&self) -> bool {
        matches!(self, Self::PutManifest { .. })
    }
}

/// Why the group's launches are resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resumption {
    /// To try one.
    Trial,
    /// An instance is about to be let into service.
    Success {
        /// The instance.
        node: NodeNumber,
        /// Whether its report names a backup that was skipped.
        tells_skipped: bool,
    },
}

/// What a final backup came to, as far as its hook is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Last {
    /// It is committed.
    Committed,
    /// There was nothing to save.
    NothingToSave,
    /// It failed, and that was said.
    Failed,
    /// It will not come, and whoever answers the hook says so.
    Cancelled,
    /// None was had, and whoever answers the hook says so.
    GivenUp,
}

/// Takes up an invocation's next call, unless one like it is under way or it would find everything done: whatever
/// comes twice or late does so as an event.
pub(super) fn take_up(world: &mut World, call: Option<Call>) {
    if let Some(call) = call
        && !world.calls.contains(&call)
        && !is_pointless(world, &call)
    {
        world.calls.push(call);
        world.calls.sort_unstable();
    }
}

/// Tells whether a call changes nothing now, nor ever will.
fn is_pointless(world: &World, call: &Call) -> bool {
    match *call {
        Call::CheckObjects { command, run } | Call::PutManifest { command, run, .. } => {
            let number = world.command(command).node;
            let node = world.node(number);
            let is_final = world.run(run).purpose == Purpose::Final;
            let answered = !is_final || node.standing > Standing::Leaving;
            let refused = answered && (!is_final || node.told);
            let backup = world.run(run).backup;
            let aside = world.aside.get(&backup);
            let committed = world.manifests.get(&backup).map(|manifest| manifest.run);
            match committed.or(aside.copied()) {
                Some(before) if before == run => {
                    answered && (world.parameter || committed.is_none())
                }
                Some(_) => refused,
                None => {
                    refused && !world.run(run).sound && matches!(call, Call::CheckObjects { .. })
                }
            }
        }
        Call::PutAccepted { backup } | Call::DropAside { backup } => {
            !world.aside.contains_key(&backup)
        }
        Call::PutParameter { command } => command.is_none() && world.parameter,
        Call::AnswerLeaving { node, .. } => world.node(node).standing != Standing::Leaving,
        Call::TellLoss { node } | Call::TellAbandoned { node } => world.node(node).told,
        Call::LookAgain { node, .. }
        | Call::Admit { node, .. }
        | Call::Abandon { node }
        | Call::ChooseBackup { node, .. } => world.node(node).standing != Standing::Waiting,
        Call::SendBackup { .. }
        | Call::ListExpired
        | Call::DeleteManifests { .. }
        | Call::DeleteObjects { .. }
        | Call::SendFinal { .. }
        | Call::CancelFinal { .. }
        | Call::SendRestore { .. }
        | Call::TripBreaker { .. }
        | Call::SuspendLaunches { .. }
        | Call::ResumeLaunches { .. }
        | Call::RecordBreaker { .. }
        | Call::TellConcessions { .. } => false,
    }
}
