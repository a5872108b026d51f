//! The agent on an instance: its lock, its memory, its marker, and the two stories in steps between which it may die.

use shared::report::ExitCode;

use super::Protocol;
use super::calls::Call;
use super::plants::Plant;
use super::situations::Situation;
use super::world::{
    Ask, CommandNumber, Data, Node, NodeNumber, Outcome, Process, Purpose, Run, Stage, Standing,
    Status, World,
};

/// Starts a process for a command that was delivered.
pub(super) fn start(protocol: &Protocol, world: &mut World, command: CommandNumber) {
    let node = world.command(command).node;
    let stage = enter(protocol, world, command);
    let processes = &mut world.node_mut(node).processes;
    processes.push(Process { command, stage });
    processes.sort_by_key(|process| process.command);
}

/// Remembers, waits for the lock, or begins.
fn enter(protocol: &Protocol, world: &mut World, command: CommandNumber) -> Stage {
    if let Some(outcome) = recall(world, command) {
        protocol.reach(Situation::AnsweredFromMemory);
        return conclude(world, command, outcome);
    }
    let node = world.command(command).node;
    let Some(holder) = lock_holder(world, node) else {
        return begin(protocol, world, command);
    };
    if is_patient(world, command) || is_same_operation(world, command, holder) {
        return Stage::AwaitingLock;
    }
    protocol.reach(Situation::NodeBusy);
    Stage::Reporting(Outcome::Failed(ExitCode::Busy))
}

fn begin(protocol: &Protocol, world: &mut World, command: CommandNumber) -> Stage {
    let (node, ask) = (
        world.command(command).node,
        world.command(command).ask.clone(),
    );
    let Node {
        data,
        skipped,
        emptied,
        marker,
        ..
    } = world.node(node).clone();
    let marked = marker.is_some();
    match ask {
        Ask::Restore(_) if marked => Stage::Recording(Outcome::AlreadyRestored {
            backup: data.backup(),
            skipped: u8::try_from(skipped.len()).unwrap_or(u8::MAX),
        }),
        Ask::Restore(_) => Stage::Restoring,
        Ask::Backup { backup, purpose } => {
            let may = marked || purpose == Purpose::Adopt || protocol.has(Plant::IgnoresMarker);
            if !may {
                protocol.reach(Situation::NeverRestoredRefused);
                return Stage::Recording(Outcome::Failed(ExitCode::NotRestored));
            }
            let run = u8::try_from(world.runs.len()).unwrap_or(u8::MAX);
            world.runs.push(Run {
                backup,
                node,
                purpose,
                data,
                skipped,
                emptied,
                complete: false,
                sound: true,
                remembered: false,
            });
            Stage::Uploading(run)
        }
    }
}

/// Takes a process one step further; `false` where it has to wait.
pub(super) fn work(protocol: &Protocol, world: &mut World, node: NodeNumber, index: usize) -> bool {
    let Process { command, stage } = world.node(node).processes[index];
    let next = match stage {
        Stage::AwaitingLock if lock_holder(world, node).is_some() => return false,
        Stage::AwaitingLock => enter(protocol, world, command),
        // What was admitted by the guard is put before a whole restore is over.
        Stage::Restoring if world.calls.iter().any(Call::is_put) => return false,
        Stage::Restoring => restore(protocol, world, command),
        Stage::Uploading(run) => {
            let adopts = world.run(run).purpose == Purpose::Adopt;
            world.runs[usize::from(run)].complete = true;
            let outcome = Outcome::BackedUp(run);
            if adopts && world.node(node).marker.is_none() {
                Stage::Marking(outcome)
            } else {
                Stage::Recording(outcome)
            }
        }
        Stage::Marking(outcome) => {
            let node = world.node_mut(node);
            node.marker = Some(node.data);
            node.served |= node.standing == Standing::Serving;
            Stage::Recording(outcome)
        }
        Stage::Recording(outcome) => {
            remember(world, command, outcome);
            conclude(world, command, outcome)
        }
        Stage::Retiring(outcome) => {
            let node = world.node_mut(node);
            (node.marker, node.launch) = (None, None);
            Stage::Reporting(outcome)
        }
        Stage::Reporting(outcome) => {
            let command = world.command_mut(command);
            // Where SSM has given the command up, nobody reads its report.
            if command.status == Status::Running {
                command.status = Status::Ended(outcome);
            }
            world.node_mut(node).processes.remove(index);
            return true;
        }
    };
    world.node_mut(node).processes[index].stage = next;
    true
}

fn restore(protocol: &Protocol, world: &mut World, command: CommandNumber) -> Stage {
    let node = world.command(command).node;
    let Ask::Restore(candidates) = world.command(command).ask.clone() else {
        return Stage::Reporting(Outcome::Failed(ExitCode::Usage));
    };
    if candidates.is_empty() {
        world.node_mut(node).data = Data::FirstBoot;
        protocol.reach(Situation::FirstBoot);
        return Stage::Marking(Outcome::FirstBoot);
    }
    for (&backup, skipped) in candidates.iter().zip(0..) {
        if world.is_good(backup) {
            let emptied = world.run(world.manifests[&backup].run).emptied;
            let node = world.node_mut(node);
            node.data = Data::Of(backup);
            node.skipped = candidates[..usize::from(skipped)].to_vec();
            node.emptied = emptied;
            if skipped > 0 {
                protocol.reach(Situation::FellBack);
            }
            return Stage::Marking(Outcome::Restored { backup, skipped });
        }
        if protocol.has(Plant::RestoresUnread) {
            world.node_mut(node).data = Data::Unverified;
            return Stage::Marking(Outcome::Restored { backup, skipped });
        }
    }
    protocol.reach(Situation::NoUsableBackup);
    match candidates.as_slice() {
        [_] => Stage::Reporting(Outcome::Failed(ExitCode::Verification)),
        _ => Stage::Recording(Outcome::Failed(ExitCode::NoUsableBackup)),
    }
}

/// Ends a process by a failure of its own, if it is where it can fail.
pub(super) fn fail(world: &mut World, node: NodeNumber, index: usize, code: ExitCode) -> bool {
    let Process { stage, .. } = world.node(node).processes[index];
    let fits = match code {
        ExitCode::Dump => matches!(stage, Stage::Uploading(_)),
        _ => stage == Stage::Restoring,
    };
    if fits {
        let outcome = Outcome::Failed(code);
        world.node_mut(node).processes[index].stage = if code.permanent() {
            Stage::Recording(outcome)
        } else {
            Stage::Reporting(outcome)
        };
    }
    fits
}

/// Ends a wait for the lock whose time is over.
pub(super) fn give_up_waiting(
    protocol: &Protocol,
    world: &mut World,
    node: NodeNumber,
    index: usize,
) -> bool {
    let Process { command, stage } = world.node(node).processes[index];
    let held =
        lock_holder(world, node).is_some_and(|holder| !is_same_operation(world, command, holder));
    if stage != Stage::AwaitingLock || !held {
        return false;
    }
    protocol.reach(Situation::NodeBusy);
    world.node_mut(node).processes[index].stage = Stage::Reporting(Outcome::Failed(ExitCode::Busy));
    true
}

/// Ends a backup that holds the lock, since a final one waits.
pub(super) fn give_way(protocol: &Protocol, world: &mut World, node: NodeNumber) -> bool {
    let is_final = |world: &World, command: CommandNumber| {
        matches!(
            world.command(command).ask,
            Ask::Backup {
                purpose: Purpose::Final,
                ..
            }
        )
    };
    let is_backup = |world: &World, command: CommandNumber| {
        matches!(world.command(command).ask, Ask::Backup { .. })
    };
    let asked =
        world.node(node).processes.iter().any(|process| {
            process.stage == Stage::AwaitingLock && is_final(world, process.command)
        });
    let holder = world.node(node).processes.iter().position(|process| {
        process.stage.holds_lock()
            && is_backup(world, process.command)
            && !is_final(world, process.command)
    });
    let Some(holder) = holder.filter(|_| asked) else {
        return false;
    };
    protocol.reach(Situation::GaveWay);
    world.node_mut(node).processes[holder].stage =
        Stage::Reporting(Outcome::Failed(ExitCode::Busy));
    true
}

/// Does what a success entails: after its final backup a node retires.
fn conclude(world: &World, command: CommandNumber, outcome: Outcome) -> Stage {
    match (&world.command(command).ask, outcome) {
        (
            Ask::Backup {
                purpose: Purpose::Final,
                ..
            },
            Outcome::BackedUp(_),
        ) => Stage::Retiring(outcome),
        _ => Stage::Reporting(outcome),
    }
}

fn recall(world: &World, command: CommandNumber) -> Option<Outcome> {
    let command = world.command(command);
    let node = world.node(command.node);
    match command.ask {
        Ask::Restore(_) => node.launch,
        Ask::Backup {
            purpose: Purpose::Final,
            ..
        } => node.last,
        Ask::Backup { backup, .. } => {
            let run = world.runs.iter().position(|run| {
                run.remembered && run.backup == backup && run.node == command.node
            })?;
            Some(Outcome::BackedUp(u8::try_from(run).unwrap_or(u8::MAX)))
        }
    }
}

/// Keeps a success, and a refusal that would repeat.
fn remember(world: &mut World, command: CommandNumber, outcome: Outcome) {
    let kept = match outcome {
        Outcome::Failed(code) => code.permanent(),
        _ => true,
    };
    let command = world.command(command).clone();
    let node = world.node_mut(command.node);
    match command.ask {
        _ if !kept => {}
        Ask::Restore(_) => node.launch = Some(outcome),
        Ask::Backup {
            purpose: Purpose::Final,
            ..
        } => node.last = Some(outcome),
        Ask::Backup { .. } => {
            if let Outcome::BackedUp(run) = outcome {
                world.runs[usize::from(run)].remembered = true;
            }
        }
    }
}

fn lock_holder(world: &World, node: NodeNumber) -> Option<CommandNumber> {
    let mut holders = world.node(node).processes.iter();
    holders
        .find(|process| process.stage.holds_lock())
        .map(|process| process.command)
}

/// A scheduled backup waits for nobody: the next one will do.
fn is_patient(world: &World, command: CommandNumber) -> bool {
    matches!(
        world.command(command).ask,
        Ask::Restore(_)
            | Ask::Backup {
                purpose: Purpose::Final,
                ..
            }
    )
}

fn is_same_operation(world: &World, one: CommandNumber, other: CommandNumber) -> bool {
    match (&world.command(one).ask, &world.command(other).ask) {
        (Ask::Restore(_), Ask::Restore(_)) => true,
        (
            Ask::Backup { backup, purpose },
            Ask::Backup {
                backup: other_backup,
                purpose: other_purpose,
            },
        ) => purpose == other_purpose && (backup == other_backup || *purpose == Purpose::Final),
        _ => false,
    }
}
