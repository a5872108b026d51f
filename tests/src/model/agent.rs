//! The agent on an instance: its lock, its records, its marker, and the stages of a backup and of a restore. It may be
//! killed between two stages.

use shared::exit_code::ExitCode;

use crate::model::protocol::Protocol;
use crate::model::protocol::defects::Defect;
use crate::model::protocol::situations::Situation;
use crate::model::world::{
    AgentOutcome, Call, CommandNumber, Data, Lifecycle, Node, NodeNumber, Process, Purpose,
    Request, Run, Stage, Status, World,
};

/// Starts a process for a delivered command.
pub(in crate::model) fn start(protocol: &Protocol, world: &mut World, command: CommandNumber) {
    let node = world.command(command).node;
    let stage = take_lock(protocol, world, command);
    let processes = &mut world.node_mut(node).processes;
    processes.push(Process { command, stage });
    processes.sort_by_key(|process| process.command);
}

/// Answers from a record, waits for the lock, or begins the operation.
fn take_lock(protocol: &Protocol, world: &mut World, command: CommandNumber) -> Stage {
    if let Some(outcome) = recorded_outcome(world, command) {
        protocol.note(Situation::AnsweredFromRecord);
        return finish(world, command, outcome);
    }
    let node = world.command(command).node;
    let Some(holder) = lock_holder(world, node) else {
        return begin(protocol, world, command);
    };
    if waits_for_lock(world, command) || is_same_operation(world, command, holder) {
        return Stage::AwaitingLock;
    }
    protocol.note(Situation::NodeBusy);
    Stage::Reporting(AgentOutcome::Failed(ExitCode::Busy))
}

fn begin(protocol: &Protocol, world: &mut World, command: CommandNumber) -> Stage {
    let (node, request) = (
        world.command(command).node,
        world.command(command).request.clone(),
    );
    let Node {
        data,
        skipped,
        emptied,
        marker,
        ..
    } = world.node(node).clone();
    let marked = marker.is_some();
    match request {
        Request::Restore(_) if marked => Stage::Recording(AgentOutcome::AlreadyRestored {
            backup: data.backup(),
            skipped: u8::try_from(skipped.len()).unwrap_or(u8::MAX),
        }),
        Request::Restore(_) => Stage::Restoring,
        Request::Backup { backup, purpose } => {
            let may = marked || purpose == Purpose::Adopt || protocol.has(Defect::IgnoresMarker);
            if !may {
                protocol.note(Situation::UnrestoredRefused);
                return Stage::Recording(AgentOutcome::Failed(ExitCode::NotRestored));
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
                recorded: false,
            });
            Stage::Uploading(run)
        }
    }
}

/// Moves a process to its next stage. Returns `false` if it has to wait.
pub(in crate::model) fn advance(
    protocol: &Protocol,
    world: &mut World,
    node: NodeNumber,
    index: usize,
) -> bool {
    let Process { command, stage } = world.node(node).processes[index];
    let next = match stage {
        Stage::AwaitingLock if lock_holder(world, node).is_some() => return false,
        Stage::AwaitingLock => take_lock(protocol, world, command),
        // An invocation that has called the guard writes its manifest before a whole restore is over.
        Stage::Restoring if world.calls.iter().any(Call::is_put) => return false,
        Stage::Restoring => restore(protocol, world, command),
        Stage::Uploading(run) => {
            let adopts = world.run(run).purpose == Purpose::Adopt;
            world.runs[usize::from(run)].complete = true;
            let outcome = AgentOutcome::BackedUp(run);
            if adopts && world.node(node).marker.is_none() {
                Stage::WritingMarker(outcome)
            } else {
                Stage::Recording(outcome)
            }
        }
        Stage::WritingMarker(outcome) => {
            let node = world.node_mut(node);
            node.marker = Some(node.data);
            node.served |= node.lifecycle == Lifecycle::InService;
            Stage::Recording(outcome)
        }
        Stage::Recording(outcome) => {
            record_outcome(world, command, outcome);
            finish(world, command, outcome)
        }
        Stage::Decommissioning(outcome) => {
            let node = world.node_mut(node);
            (node.marker, node.launch_record) = (None, None);
            Stage::Reporting(outcome)
        }
        Stage::Reporting(outcome) => {
            let command = world.command_mut(command);
            // If SSM has timed the command out, nobody reads the report.
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
    let Request::Restore(candidates) = world.command(command).request.clone() else {
        return Stage::Reporting(AgentOutcome::Failed(ExitCode::Usage));
    };
    if candidates.is_empty() {
        world.node_mut(node).data = Data::FirstBoot;
        protocol.note(Situation::FirstBoot);
        return Stage::WritingMarker(AgentOutcome::FirstBoot);
    }
    for (&backup, skipped) in candidates.iter().zip(0..) {
        if world.is_good(backup) {
            let emptied = world.run(world.manifests[&backup].run).emptied;
            let node = world.node_mut(node);
            node.data = Data::FromBackup(backup);
            node.skipped = candidates[..usize::from(skipped)].to_vec();
            node.emptied = emptied;
            if skipped > 0 {
                protocol.note(Situation::FallbackRestored);
            }
            return Stage::WritingMarker(AgentOutcome::Restored { backup, skipped });
        }
        if protocol.has(Defect::RestoresUnverified) {
            world.node_mut(node).data = Data::Unverified;
            return Stage::WritingMarker(AgentOutcome::Restored { backup, skipped });
        }
    }
    protocol.note(Situation::NoUsableBackup);
    match candidates.as_slice() {
        [_] => Stage::Reporting(AgentOutcome::Failed(ExitCode::Verification)),
        _ => Stage::Recording(AgentOutcome::Failed(ExitCode::NoUsableBackup)),
    }
}

/// Lets a process fail, if its stage can fail with this exit code.
pub(in crate::model) fn fail(
    world: &mut World,
    node: NodeNumber,
    index: usize,
    code: ExitCode,
) -> bool {
    let Process { stage, .. } = world.node(node).processes[index];
    let can_fail = match code {
        ExitCode::Dump => matches!(stage, Stage::Uploading(_)),
        _ => stage == Stage::Restoring,
    };
    if can_fail {
        let outcome = AgentOutcome::Failed(code);
        world.node_mut(node).processes[index].stage = if code.permanent() {
            Stage::Recording(outcome)
        } else {
            Stage::Reporting(outcome)
        };
    }
    can_fail
}

/// Ends a wait for the lock that has timed out.
pub(in crate::model) fn end_lock_wait(
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
    protocol.note(Situation::NodeBusy);
    world.node_mut(node).processes[index].stage =
        Stage::Reporting(AgentOutcome::Failed(ExitCode::Busy));
    true
}

/// Ends a running backup if a final backup waits for the lock.
pub(in crate::model) fn preempt(protocol: &Protocol, world: &mut World, node: NodeNumber) -> bool {
    let is_backup = |world: &World, command: CommandNumber| {
        matches!(world.command(command).request, Request::Backup { .. })
    };
    let final_waits = world
        .node(node)
        .processes
        .iter()
        .any(|process| process.stage == Stage::AwaitingLock && world.is_final(process.command));
    let holder = world.node(node).processes.iter().position(|process| {
        process.stage.holds_lock()
            && is_backup(world, process.command)
            && !world.is_final(process.command)
    });
    let Some(holder) = holder.filter(|_| final_waits) else {
        return false;
    };
    protocol.note(Situation::Preempted);
    world.node_mut(node).processes[holder].stage =
        Stage::Reporting(AgentOutcome::Failed(ExitCode::Busy));
    true
}

/// Returns the next stage after the outcome is recorded: a node is decommissioned after its final backup.
fn finish(world: &World, command: CommandNumber, outcome: AgentOutcome) -> Stage {
    match (&world.command(command).request, outcome) {
        (
            Request::Backup {
                purpose: Purpose::Final,
                ..
            },
            AgentOutcome::BackedUp(_),
        ) => Stage::Decommissioning(outcome),
        _ => Stage::Reporting(outcome),
    }
}

fn recorded_outcome(world: &World, command: CommandNumber) -> Option<AgentOutcome> {
    let command = world.command(command);
    let node = world.node(command.node);
    match command.request {
        Request::Restore(_) => node.launch_record,
        Request::Backup {
            purpose: Purpose::Final,
            ..
        } => node.final_record,
        Request::Backup { backup, .. } => {
            let run = world
                .runs
                .iter()
                .position(|run| run.recorded && run.backup == backup && run.node == command.node)?;
            Some(AgentOutcome::BackedUp(u8::try_from(run).unwrap_or(u8::MAX)))
        }
    }
}

/// Records a success, and a failure that would repeat.
fn record_outcome(world: &mut World, command: CommandNumber, outcome: AgentOutcome) {
    let lasting = match outcome {
        AgentOutcome::Failed(code) => code.permanent(),
        _ => true,
    };
    let command = world.command(command).clone();
    let node = world.node_mut(command.node);
    match command.request {
        _ if !lasting => {}
        Request::Restore(_) => node.launch_record = Some(outcome),
        Request::Backup {
            purpose: Purpose::Final,
            ..
        } => node.final_record = Some(outcome),
        Request::Backup { .. } => {
            if let AgentOutcome::BackedUp(run) = outcome {
                world.runs[usize::from(run)].recorded = true;
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

/// Returns whether a command waits for the lock. A scheduled backup does not: the next tick will back up.
fn waits_for_lock(world: &World, command: CommandNumber) -> bool {
    matches!(
        world.command(command).request,
        Request::Restore(_)
            | Request::Backup {
                purpose: Purpose::Final,
                ..
            }
    )
}

fn is_same_operation(world: &World, one: CommandNumber, other: CommandNumber) -> bool {
    match (&world.command(one).request, &world.command(other).request) {
        (Request::Restore(_), Request::Restore(_)) => true,
        (
            Request::Backup { backup, purpose },
            Request::Backup {
                backup: other_backup,
                purpose: other_purpose,
            },
        ) => purpose == other_purpose && (backup == other_backup || *purpose == Purpose::Final),
        _ => false,
    }
}
