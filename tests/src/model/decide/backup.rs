//! The decisions of the backup function.

use backup::decide as shipped;
use shared::aws::autoscaling::{LifecycleResult, LifecycleState};
use shared::aws::ssm::{InvocationStatus, Ping};
use shared::budget;
use shared::command::BackupCommand;
use time::Duration;

use super::memo::Memo;
use super::reports::invocation;
use crate::model::world::names;
use crate::model::world::{
    Agent, BackupNumber, CommandNumber, FinalResult, Lifecycle, NodeNumber, Purpose, RunNumber,
    Status,
};

thread_local! {
    static STARTS: Memo<TickFacts, Start> = Memo::new();
    static ENDINGS: Memo<FinishedFacts, Ending> = Memo::new();
    static TERMINATING: Memo<TerminatingFacts, Terminating> = Memo::new();
}

/// The facts about a group at a tick.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct TickFacts {
    pub(in crate::model) in_service: Vec<NodeNumber>,
    pub(in crate::model) agent: Option<Agent>,
    pub(in crate::model) executing: Option<CommandNumber>,
    pub(in crate::model) requested: Option<CommandNumber>,
}

/// Whether a tick starts a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum Start {
    BackUp(NodeNumber),
    Skip { refused: bool },
}

/// Decides whether a backup is started.
pub(in crate::model) fn start(facts: &TickFacts) -> Start {
    STARTS.with(|memo| {
        memo.get(facts, |facts| {
            let in_service = facts.in_service.iter().copied();
            let facts = shipped::GroupFacts {
                application: Ok(names::application()),
                rivals: Vec::new(),
                in_service: in_service.map(names::instance).collect(),
                ping: facts.agent.and_then(ping),
                executing: facts.executing.map(names::command_id),
                requested: facts.requested.map(names::command_id),
            };
            match shipped::on_tick(&facts) {
                shipped::Start::Start { instance, .. } => Start::BackUp(names::node(&instance)),
                shipped::Start::Skip(skip) => Start::Skip {
                    refused: is_refused(&skip),
                },
            }
        })
    })
}

fn is_refused(skip: &shipped::Skip) -> bool {
    match skip {
        shipped::Skip::MalformedTag(_) | shipped::Skip::ApplicationClaimedTwice(_) => {
            unreachable!("the model has one group, with a valid tag")
        }
        shipped::Skip::NoInstanceInService
        | shipped::Skip::SeveralInService(_)
        | shipped::Skip::AlreadyRequested(_)
        | shipped::Skip::CommandExecuting(_)
        | shipped::Skip::AgentNotRegistered(_)
        | shipped::Skip::AgentConnectionLost(_) => skip.is_refusal(),
    }
}

/// Decides whether an operator may adopt the node in service.
pub(in crate::model) fn may_adopt(newest: Option<BackupNumber>) -> bool {
    shipped::on_adopt(newest.map(names::backup_id).as_ref(), false).is_ok()
}

/// The facts about a backup command.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct FinishedFacts {
    pub(in crate::model) node: NodeNumber,
    pub(in crate::model) backup: BackupNumber,
    pub(in crate::model) purpose: Purpose,
    pub(in crate::model) status: Status,
    /// The backup that the report names, or the command's own if it names none.
    pub(in crate::model) reported: BackupNumber,
    pub(in crate::model) late: bool,
}

/// How a backup command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum Ending {
    StillRunning,
    Commit(RunNumber),
    TooLate(BackupNumber),
    Busy,
    NotRestored,
    Cancelled,
    Failed,
}

/// Decides how a backup command ended.
pub(in crate::model) fn finished(facts: &FinishedFacts) -> Ending {
    ENDINGS.with(|memo| {
        memo.get(facts, |facts| {
            let (node, purpose) = (facts.node, facts.purpose);
            let operation_id = names::backup_operation(node, facts.backup, purpose);
            let requested_at = names::requested_at(facts.backup);
            let window = if facts.late { budget::COMMIT_WINDOW } else { 0 };
            let facts = shipped::FinishedFacts {
                requested_at,
                invocation: invocation(facts.status, &operation_id, facts.reported),
                command: BackupCommand {
                    operation_id,
                    backup_id: names::backup_id(facts.backup),
                    purpose: shipped_purpose(purpose),
                },
                now: requested_at + shipped::seconds(window + 1),
            };
            match shipped::on_finished(&facts) {
                shipped::Ending::StillRunning(_) => Ending::StillRunning,
                shipped::Ending::Commit(report) => Ending::Commit(names::run(&report.run_id)),
                shipped::Ending::TooLate(backup) => Ending::TooLate(names::backup(&backup)),
                shipped::Ending::Busy => Ending::Busy,
                shipped::Ending::NotRestored(_) => Ending::NotRestored,
                shipped::Ending::Unreported {
                    status: InvocationStatus::Cancelled,
                    ..
                } => Ending::Cancelled,
                shipped::Ending::Rejected(_)
                | shipped::Ending::Failed { .. }
                | shipped::Ending::Unreported { .. } => Ending::Failed,
            }
        })
    })
}

/// The newest command for an instance's final backup.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct FinalCommand {
    pub(in crate::model) command: CommandNumber,
    pub(in crate::model) status: Status,
    pub(in crate::model) busy: bool,
    pub(in crate::model) overdue: bool,
}

/// The facts about an instance in its terminate hook.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct TerminatingFacts {
    pub(in crate::model) lifecycle: Lifecycle,
    pub(in crate::model) agent: Agent,
    pub(in crate::model) command: Option<FinalCommand>,
}

/// The decision about an instance in its terminate hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum Terminating {
    Nothing,
    Send,
    Cancel(CommandNumber),
    Finish(CommandNumber),
    GiveUp,
}

/// Decides about an instance in its terminate hook.
pub(in crate::model) fn terminating(facts: &TerminatingFacts) -> Terminating {
    TERMINATING.with(|memo| {
        memo.get(facts, |facts| {
            let requested_at = names::requested_at(0);
            let overdue = facts.command.as_ref().is_some_and(|it| it.overdue);
            let elapsed = if overdue { 2 * budget::DELIVERY } else { 1 };
            let command = facts.command.as_ref().map(|it| shipped::FinalCommand {
                command_id: names::command_id(it.command),
                requested_at,
                status: Some(status(it.status)),
                busy: it.busy,
            });
            let facts = shipped::TerminatingFacts {
                state: lifecycle(facts.lifecycle),
                ping: ping(facts.agent),
                command,
                now: requested_at + Duration::seconds(elapsed.into()),
            };
            match shipped::on_terminating(&facts) {
                shipped::Terminating::NotLeaving
                | shipped::Terminating::NothingWaits
                | shipped::Terminating::Wait { .. } => Terminating::Nothing,
                shipped::Terminating::Send => Terminating::Send,
                shipped::Terminating::Cancel(id) => Terminating::Cancel(names::command(&id)),
                shipped::Terminating::Settle(id) => Terminating::Finish(names::command(&id)),
                shipped::Terminating::GiveUp(_) => Terminating::GiveUp,
            }
        })
    })
}

/// Decides whether the terminate hook is answered. The model has no group that retains abandoned instances.
pub(in crate::model) fn answers(result: FinalResult) -> bool {
    let result = match result {
        FinalResult::Committed => shipped::FinalBackup::Committed,
        FinalResult::NothingToSave => shipped::FinalBackup::NothingToSave,
        FinalResult::Failed | FinalResult::GivenUp => shipped::FinalBackup::Failed,
        FinalResult::Cancelled => shipped::FinalBackup::Cancelled,
    };
    shipped::answer(result, false) == Some(LifecycleResult::Continue)
}

fn ping(agent: Agent) -> Option<Ping> {
    match agent {
        Agent::Unregistered => None,
        Agent::Online => Some(Ping::Online),
        Agent::Lost => Some(Ping::ConnectionLost),
    }
}

fn lifecycle(lifecycle: Lifecycle) -> Option<LifecycleState> {
    match lifecycle {
        Lifecycle::Launching => Some(LifecycleState::PendingWait),
        Lifecycle::InService => Some(LifecycleState::InService),
        Lifecycle::Terminating => Some(LifecycleState::TerminatingWait),
        Lifecycle::Proceeding => Some(LifecycleState::TerminatingProceed),
        Lifecycle::Gone => None,
    }
}

fn status(status: Status) -> InvocationStatus {
    // Only the status matters here; `finished` reads the report.
    let operation = names::launch_operation(0);
    invocation(status, &operation, 0).status
}

pub(super) fn shipped_purpose(purpose: Purpose) -> shared::command::Purpose {
    match purpose {
        Purpose::Scheduled => shared::command::Purpose::Scheduled,
        Purpose::Final => shared::command::Purpose::Final,
        Purpose::Adopt => shared::command::Purpose::Adopt,
    }
}
