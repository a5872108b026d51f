//! The decisions of the backup function.

use backup::finished::decide as finish;
use backup::hook::decide as hook;
use backup::requests::decide::on_adopt;
use backup::start::decide as shipped_start;
use backup::terminating::decide as terminate;
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
            let facts = shipped_start::StartFacts {
                application: Ok(names::application()),
                rivals: Vec::new(),
                in_service: in_service.map(names::instance).collect(),
                ping: facts.agent.and_then(ping),
                executing: facts.executing.map(names::command_id),
                requested: facts.requested.map(names::command_id),
            };
            match shipped_start::on_start(&facts) {
                shipped_start::Start::Start(target) => Start::BackUp(names::node(&target.instance)),
                shipped_start::Start::Skip(skip) => Start::Skip {
                    refused: is_refused(&skip),
                },
            }
        })
    })
}

fn is_refused(skip: &shipped_start::Skip) -> bool {
    match skip {
        shipped_start::Skip::MalformedTag(_) | shipped_start::Skip::ApplicationClaimedTwice(_) => {
            unreachable!("the model has one group, with a valid tag")
        }
        shipped_start::Skip::NoInstanceInService
        | shipped_start::Skip::SeveralInService(_)
        | shipped_start::Skip::AlreadyRequested(_)
        | shipped_start::Skip::CommandExecuting(_)
        | shipped_start::Skip::AgentNotRegistered(_)
        | shipped_start::Skip::AgentConnectionLost(_) => skip.is_refusal(),
    }
}

/// Decides whether an operator may adopt the node in service.
pub(in crate::model) fn may_adopt(newest: Option<BackupNumber>) -> bool {
    on_adopt(newest.map(names::backup_id).as_ref(), false).is_ok()
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
            let facts = finish::FinishedFacts {
                requested_at,
                invocation: invocation(facts.status, &operation_id, facts.reported),
                command: BackupCommand {
                    operation_id,
                    backup_id: names::backup_id(facts.backup),
                    purpose: shipped_purpose(purpose),
                },
                now: requested_at + budget::seconds(window + 1),
            };
            match finish::on_finished(&facts) {
                finish::Ending::StillRunning(_) => Ending::StillRunning,
                finish::Ending::Commit(report) => Ending::Commit(names::run(&report.run_id)),
                finish::Ending::TooLate(backup) => Ending::TooLate(names::backup(&backup)),
                finish::Ending::Busy => Ending::Busy,
                finish::Ending::NotRestored(_) => Ending::NotRestored,
                finish::Ending::Cancelled(_) => Ending::Cancelled,
                finish::Ending::Failed(_) => Ending::Failed,
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
            let command = facts.command.as_ref().map(|it| terminate::FinalCommand {
                command_id: names::command_id(it.command),
                requested_at,
                status: Some(status(it.status)),
                busy: it.busy,
            });
            let facts = terminate::TerminatingFacts {
                state: lifecycle(facts.lifecycle),
                ping: ping(facts.agent),
                command,
                now: requested_at + Duration::seconds(elapsed.into()),
            };
            match terminate::on_terminating(&facts) {
                terminate::TerminatingDecision::NotLeaving
                | terminate::TerminatingDecision::NothingWaits
                | terminate::TerminatingDecision::Wait { .. } => Terminating::Nothing,
                terminate::TerminatingDecision::Send => Terminating::Send,
                terminate::TerminatingDecision::Cancel(id) => {
                    Terminating::Cancel(names::command(&id))
                }
                terminate::TerminatingDecision::Finish(id) => {
                    Terminating::Finish(names::command(&id))
                }
                terminate::TerminatingDecision::GiveUp(_) => Terminating::GiveUp,
            }
        })
    })
}

/// Decides whether the terminate hook is answered. The model has no group that retains abandoned instances.
pub(in crate::model) fn answers(result: FinalResult) -> bool {
    let result = match result {
        FinalResult::Committed => hook::FinalBackup::Committed,
        FinalResult::NothingToSave => hook::FinalBackup::NothingToSave,
        FinalResult::Failed | FinalResult::GivenUp => hook::FinalBackup::Failed,
        FinalResult::Cancelled => hook::FinalBackup::Cancelled,
    };
    hook::answer(result, false) == Some(LifecycleResult::Continue)
}

pub(super) fn ping(agent: Agent) -> Option<Ping> {
    match agent {
        Agent::Unregistered => None,
        Agent::Online => Some(Ping::Online),
        Agent::Lost => Some(Ping::ConnectionLost),
    }
}

pub(super) fn lifecycle(lifecycle: Lifecycle) -> Option<LifecycleState> {
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
