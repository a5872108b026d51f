//! The backup function: facts gathered from the model's world as `tick`, `settle` and `terminate` gather them from
//! AWS, the shipped decisions, and one call after the other.

use super::calls::{Call, Last};
use super::decide::{
    self, Ending, FinishedQuestion, LastCommand, Leaving, LeavingQuestion, Start, StartQuestion,
};
use super::plants::Plant;
use super::situations::Situation;
use super::ssm::{self, Sent};
use super::world::{
    Ask, BackupNumber, CommandNumber, NodeNumber, Outcome, Purpose, Standing, Status, World,
};
use super::{Protocol, commit, group};

/// Handles a tick's event, or an operator's request: starts what is due.
pub(super) fn start(
    protocol: &Protocol,
    world: &World,
    backup: BackupNumber,
    purpose: Purpose,
) -> Option<Call> {
    let in_service: Vec<NodeNumber> = world
        .numbered_nodes()
        .filter(|(_, node)| node.standing == Standing::Serving)
        .map(|(number, _)| number)
        .collect();
    let only = match in_service.as_slice() {
        [only] => Some(*only),
        _ => None,
    };
    let of_only = |command: &super::world::Command| Some(command.node) == only;
    let executing = world
        .numbered_commands()
        .find(|(_, command)| of_only(command) && !command.status.is_finished());
    let requested = world.numbered_commands().find(|(_, command)| {
        let same = matches!(command.ask, Ask::Backup { backup: asked, .. } if asked == backup);
        of_only(command) && same
    });
    let question = StartQuestion {
        agent: only.map(|only| world.node(only).agent),
        executing: executing.map(|(number, _)| number),
        requested: requested.map(|(number, _)| number),
        in_service,
    };
    match decide::start(&question) {
        Start::Of(node) => Some(Call::SendBackup {
            node,
            backup,
            purpose,
        }),
        Start::Not { refused } => {
            if refused && question.in_service.len() > 1 {
                protocol.reach(Situation::TwoInService);
            }
            None
        }
    }
}

/// Handles an operator's request to adopt the running node.
pub(super) fn adopt(protocol: &Protocol, world: &World, backup: BackupNumber) -> Option<Call> {
    let newest = world.manifests.last_key_value().map(|(newest, _)| *newest);
    if !decide::may_adopt(newest) {
        return None;
    }
    start(protocol, world, backup, Purpose::Adopt)
}

/// Handles the event of a finished backup command, or finds it in a sweep.
pub(super) fn settle(
    protocol: &Protocol,
    world: &mut World,
    command: CommandNumber,
) -> Option<Call> {
    let ending = ending(world, command)?;
    let (node, is_final) = (world.command(command).node, is_final(world, command));
    let answer = |last| is_final.then_some(Call::AnswerLeaving { node, last });
    match ending {
        Ending::Commit(run) if protocol.has(Plant::CommitsUnchecked) => Some(Call::PutManifest {
            command,
            run,
            aside: false,
        }),
        Ending::Commit(run) => Some(Call::CheckObjects { command, run }),
        Ending::TooLate(backup) if commit::is_settled(world, backup) => answer(Last::Committed),
        Ending::TooLate(_) => {
            protocol.reach(Situation::CommitLate);
            fail(world, command)
        }
        Ending::Busy if protocol.has(Plant::AnswersUnsaved) => answer(Last::NothingToSave),
        Ending::StillRunning | Ending::Busy => None,
        Ending::NotRestored if is_final => answer(Last::NothingToSave),
        Ending::Cancelled if is_final => answer(Last::Cancelled),
        Ending::NotRestored | Ending::Cancelled | Ending::Failed => fail(world, command),
    }
}

/// Says that a backup failed. A final one's rows are lost, and its hook is answered.
pub(super) fn fail(world: &mut World, command: CommandNumber) -> Option<Call> {
    if !is_final(world, command) {
        return None;
    }
    let node = world.command(command).node;
    world.node_mut(node).told = true;
    Some(Call::AnswerLeaving {
        node,
        last: Last::Failed,
    })
}

pub(super) fn is_final(world: &World, command: CommandNumber) -> bool {
    matches!(
        world.command(command).ask,
        Ask::Backup {
            purpose: Purpose::Final,
            ..
        }
    )
}

fn ending(world: &World, number: CommandNumber) -> Option<Ending> {
    let command = world.command(number);
    let Ask::Backup { backup, purpose } = command.ask else {
        return None;
    };
    let reported = match command.status {
        Status::Ended(Outcome::BackedUp(run)) => world.run(run).backup,
        _ => backup,
    };
    Some(decide::finished(&FinishedQuestion {
        node: command.node,
        backup,
        purpose,
        status: command.status,
        reported,
        late: command.late,
    }))
}

/// Handles a terminate hook's event, or finds the instance in a sweep.
pub(super) fn look_at_leaving(
    protocol: &Protocol,
    world: &mut World,
    node: NodeNumber,
) -> Option<Call> {
    let mut newest: Option<LastCommand> = None;
    for (number, command) in world.numbered_commands().rev() {
        if command.node != node || !is_final(world, number) {
            continue;
        }
        let busy = ending(world, number) == Some(Ending::Busy);
        // The event and a sweep may both have asked: the second was refused, and the first is the one to follow.
        if !busy || newest.is_none() {
            newest = Some(LastCommand {
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
    let question = LeavingQuestion {
        standing: world.node(node).standing,
        agent: world.node(node).agent,
        command: newest,
    };
    match decide::leaving(&question) {
        Leaving::Nothing => None,
        Leaving::Send => Some(Call::SendFinal { node }),
        Leaving::Cancel(command) => Some(Call::CancelFinal { command }),
        Leaving::Settle(command) => settle(protocol, world, command),
        Leaving::GiveUp => Some(Call::AnswerLeaving {
            node,
            last: Last::GivenUp,
        }),
    }
}

/// Finds, with a tick, that the application's parameter is missing.
pub(super) fn look_after(world: &World) -> Option<Call> {
    let repairs = !world.parameter && !world.manifests.is_empty();
    repairs.then_some(Call::PutParameter { command: None })
}

/// Sends the backup document.
pub(super) fn send_backup(
    world: &mut World,
    node: NodeNumber,
    backup: BackupNumber,
    purpose: Purpose,
) -> Option<Call> {
    ssm::send(world, node, Ask::Backup { backup, purpose });
    None
}

/// Sends the backup document for a final backup.
pub(super) fn send_final(world: &mut World, node: NodeNumber) -> Option<Call> {
    let ask = Ask::Backup {
        backup: world.next_backup,
        purpose: Purpose::Final,
    };
    match ssm::send(world, node, ask) {
        Sent::Yes => {
            world.next_backup += 1;
            None
        }
        Sent::Refused => Some(Call::AnswerLeaving {
            node,
            last: Last::GivenUp,
        }),
        Sent::Throttled => None,
    }
}

/// Takes an undelivered command back, unless the agent was faster.
pub(super) fn cancel_final(
    protocol: &Protocol,
    world: &mut World,
    number: CommandNumber,
) -> Option<Call> {
    let command = world.command_mut(number);
    if command.status == Status::Pending {
        command.status = Status::Cancelled;
        protocol.reach(Situation::FinalCancelled);
    }
    match command.status {
        Status::Running | Status::Ended(Outcome::BackedUp(_)) => None,
        _ => Some(Call::AnswerLeaving {
            node: command.node,
            last: Last::GivenUp,
        }),
    }
}

/// Answers the terminate hook.
pub(super) fn answer_leaving(
    protocol: &Protocol,
    world: &mut World,
    node: NodeNumber,
    last: Last,
) -> Option<Call> {
    if !decide::answers(last) {
        return None;
    }
    if !group::complete_leaving(world, node) {
        protocol.reach(Situation::AnsweredTwice);
        return None;
    }
    match last {
        Last::Committed => commit::retire(protocol, world),
        Last::Cancelled | Last::GivenUp => Some(Call::TellLoss { node }),
        Last::NothingToSave | Last::Failed => None,
    }
}
