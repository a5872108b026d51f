//! The backup function. It gathers facts from the model's world as the modules `start`, `finished` and `terminating` gather
//! them from AWS, calls the shipped decisions, and makes one call after the other.

use super::commit;
use crate::model::aws::group;
use crate::model::aws::ssm::{self, Sent};
use crate::model::decide::{
    self, Ending, FinalCommand, FinishedFacts, Start, Terminating, TerminatingFacts, TickFacts,
};
use crate::model::protocol::Protocol;
use crate::model::protocol::defects::Defect;
use crate::model::protocol::situations::Situation;
use crate::model::world::{
    AgentOutcome, BackupNumber, Call, Command, CommandNumber, FinalResult, Lifecycle, NodeNumber,
    Purpose, Request, Status, World,
};

/// Handles a tick or an operator's request: returns the call that starts a backup, if one is due.
pub(in crate::model) fn start(
    protocol: &Protocol,
    world: &World,
    backup: BackupNumber,
    purpose: Purpose,
) -> Option<Call> {
    let in_service: Vec<NodeNumber> = world
        .numbered_nodes()
        .filter(|(_, node)| node.lifecycle == Lifecycle::InService)
        .map(|(number, _)| number)
        .collect();
    let only = match in_service.as_slice() {
        [only] => Some(*only),
        _ => None,
    };
    let of_only = |command: &Command| Some(command.node) == only;
    let executing = world
        .numbered_commands()
        .find(|(_, command)| of_only(command) && !command.status.is_finished());
    let requested = world.numbered_commands().find(|(_, command)| {
        let same = matches!(command.request, Request::Backup { backup: requested, .. } if requested == backup);
        of_only(command) && same
    });
    let facts = TickFacts {
        agent: only.map(|only| world.node(only).agent),
        executing: executing.map(|(number, _)| number),
        requested: requested.map(|(number, _)| number),
        in_service,
    };
    match decide::start(&facts) {
        Start::BackUp(node) => Some(Call::SendBackup {
            node,
            backup,
            purpose,
        }),
        Start::Skip { refused } => {
            if refused && facts.in_service.len() > 1 {
                protocol.note(Situation::TwoInService);
            }
            None
        }
    }
}

/// Handles an operator's request to adopt the node in service.
pub(in crate::model) fn adopt(
    protocol: &Protocol,
    world: &World,
    backup: BackupNumber,
) -> Option<Call> {
    let newest = world.manifests.last_key_value().map(|(newest, _)| *newest);
    if !decide::may_adopt(newest) {
        return None;
    }
    start(protocol, world, backup, Purpose::Adopt)
}

/// Handles the event of a finished backup command, or a sweep that finds it.
pub(in crate::model) fn finish(
    protocol: &Protocol,
    world: &mut World,
    command: CommandNumber,
) -> Option<Call> {
    let ending = ending(world, command)?;
    let (node, is_final) = (world.command(command).node, world.is_final(command));
    let answer = |result| is_final.then_some(Call::AnswerTerminateHook { node, result });
    match ending {
        Ending::Commit(run) if protocol.has(Defect::CommitsUnchecked) => Some(Call::PutManifest {
            command,
            run,
            quarantined: false,
        }),
        Ending::Commit(run) => Some(Call::CheckObjects { command, run }),
        Ending::TooLate(backup) if world.has_manifest(backup) => answer(FinalResult::Committed),
        Ending::TooLate(_) => {
            protocol.note(Situation::CommitLate);
            commit::fail(world, command)
        }
        Ending::Busy if protocol.has(Defect::AnswersBusyHook) => answer(FinalResult::NothingToSave),
        Ending::StillRunning | Ending::Busy => None,
        Ending::NotRestored if is_final => answer(FinalResult::NothingToSave),
        Ending::Cancelled if is_final => answer(FinalResult::Cancelled),
        Ending::NotRestored | Ending::Cancelled | Ending::Failed => commit::fail(world, command),
    }
}

fn ending(world: &World, number: CommandNumber) -> Option<Ending> {
    let command = world.command(number);
    let Request::Backup { backup, purpose } = command.request else {
        return None;
    };
    let reported = match command.status {
        Status::Ended(AgentOutcome::BackedUp(run)) => world.run(run).backup,
        _ => backup,
    };
    Some(decide::finished(&FinishedFacts {
        node: command.node,
        backup,
        purpose,
        status: command.status,
        reported,
        late: command.late,
    }))
}

/// Handles a terminate hook's event, or a sweep that finds the instance.
pub(in crate::model) fn handle_terminating(
    protocol: &Protocol,
    world: &mut World,
    node: NodeNumber,
) -> Option<Call> {
    let mut newest: Option<FinalCommand> = None;
    for (number, command) in world.numbered_commands().rev() {
        if command.node != node || !world.is_final(number) {
            continue;
        }
        let busy = ending(world, number) == Some(Ending::Busy);
        // The event and a sweep may both have sent a command. The second was refused because the first was running.
        if !busy || newest.is_none() {
            newest = Some(FinalCommand {
                command: number,
                status: command.status,
                busy,
                overdue: command.overdue,
            });
        }
        if !busy {
            break;
        }
    }
    let facts = TerminatingFacts {
        lifecycle: world.node(node).lifecycle,
        agent: world.node(node).agent,
        command: newest,
    };
    match decide::terminating(&facts) {
        Terminating::Nothing => None,
        Terminating::Send => Some(Call::SendFinalBackup { node }),
        Terminating::Cancel(command) => Some(Call::CancelFinalBackup { command }),
        Terminating::Finish(command) => finish(protocol, world, command),
        Terminating::GiveUp => Some(Call::AnswerTerminateHook {
            node,
            result: FinalResult::GivenUp,
        }),
    }
}

/// Handles a tick that finds the application's parameter missing.
pub(in crate::model) fn repair_parameter(world: &World) -> Option<Call> {
    let repairs = !world.parameter && !world.manifests.is_empty();
    repairs.then_some(Call::WriteParameter { command: None })
}

/// Sends the backup document for a scheduled or adopting backup.
pub(in crate::model) fn send_backup(
    world: &mut World,
    node: NodeNumber,
    backup: BackupNumber,
    purpose: Purpose,
) -> Option<Call> {
    ssm::send(world, node, Request::Backup { backup, purpose });
    None
}

/// Sends the backup document for a final backup.
pub(in crate::model) fn send_final(world: &mut World, node: NodeNumber) -> Option<Call> {
    let request = Request::Backup {
        backup: world.next_backup,
        purpose: Purpose::Final,
    };
    match ssm::send(world, node, request) {
        Sent::Accepted => {
            world.next_backup += 1;
            None
        }
        Sent::Refused => Some(Call::AnswerTerminateHook {
            node,
            result: FinalResult::GivenUp,
        }),
        Sent::Throttled => None,
    }
}

/// Cancels an undelivered command, unless the agent has taken it meanwhile.
pub(in crate::model) fn cancel_final(
    protocol: &Protocol,
    world: &mut World,
    number: CommandNumber,
) -> Option<Call> {
    let command = world.command_mut(number);
    if command.status == Status::Pending {
        command.status = Status::Cancelled;
        protocol.note(Situation::FinalCancelled);
    }
    match command.status {
        Status::Running | Status::Ended(AgentOutcome::BackedUp(_)) => None,
        _ => Some(Call::AnswerTerminateHook {
            node: command.node,
            result: FinalResult::GivenUp,
        }),
    }
}

/// Answers the terminate hook.
pub(in crate::model) fn answer_terminate_hook(
    protocol: &Protocol,
    world: &mut World,
    node: NodeNumber,
    result: FinalResult,
) -> Option<Call> {
    if !decide::answers(result) {
        return None;
    }
    if !group::complete_termination(world, node) {
        protocol.note(Situation::AnsweredTwice);
        return None;
    }
    match result {
        FinalResult::Committed => commit::start_retention(protocol, world),
        FinalResult::Cancelled | FinalResult::GivenUp => Some(Call::LogLoss { node }),
        FinalResult::NothingToSave | FinalResult::Failed => None,
    }
}
