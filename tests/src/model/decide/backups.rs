//! The backup function's questions.

use backup::finished::decide::{self as finished_decide, FinishedFacts};
use backup::hook::decide::{FinalBackup, answer};
use backup::requests::decide::on_adopt;
use backup::start::decide::{self as start_decide, StartFacts};
use backup::terminating::decide::{
    FinalCommand, TerminatingDecision, TerminatingFacts, on_terminating,
};
use shared::aws::autoscaling::{LifecycleResult, LifecycleState};
use shared::aws::ssm::{InvocationStatus, Ping};
use shared::budget;
use shared::command::BackupCommand;
use time::Duration;

use super::Answers;
use super::reports::invocation;
use crate::model::calls::Last;
use crate::model::names;
use crate::model::world::{
    Agent, BackupNumber, CommandNumber, NodeNumber, Purpose, RunNumber, Standing, Status,
};

thread_local! {
    static STARTS: Answers<StartQuestion, Start> = Answers::new();
    static ENDINGS: Answers<FinishedQuestion, Ending> = Answers::new();
    static LEAVING: Answers<LeavingQuestion, Leaving> = Answers::new();
}

/// What the start of a backup depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct StartQuestion {
    pub(in crate::model) in_service: Vec<NodeNumber>,
    pub(in crate::model) agent: Option<Agent>,
    pub(in crate::model) executing: Option<CommandNumber>,
    pub(in crate::model) requested: Option<CommandNumber>,
}

/// Whether a backup is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum Start {
    Of(NodeNumber),
    Not { refused: bool },
}

/// Asks whether a backup is started.
pub(in crate::model) fn start(question: &StartQuestion) -> Start {
    STARTS.with(|answers| {
        answers.of(question, |question| {
            let facts = StartFacts {
                application: Ok(names::application()),
                rivals: Vec::new(),
                in_service: question
                    .in_service
                    .iter()
                    .copied()
                    .map(names::instance)
                    .collect(),
                ping: question.agent.and_then(ping),
                executing: question.executing.map(names::command_id),
                requested: question.requested.map(names::command_id),
            };
            match start_decide::on_start(&facts) {
                start_decide::Start::Start(target) => Start::Of(names::node(&target.instance)),
                start_decide::Start::Skip(skip) => Start::Not {
                    refused: skip.is_refusal(),
                },
            }
        })
    })
}

/// Asks whether an operator may adopt the running node.
pub(in crate::model) fn may_adopt(newest: Option<BackupNumber>) -> bool {
    on_adopt(newest.map(names::backup_id).as_ref(), false).is_ok()
}

/// What is known of a backup command.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct FinishedQuestion {
    pub(in crate::model) node: NodeNumber,
    pub(in crate::model) backup: BackupNumber,
    pub(in crate::model) purpose: Purpose,
    pub(in crate::model) status: Status,
    /// The backup of the run that its report names; its own where it names none.
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

/// Asks how a backup command ended.
pub(in crate::model) fn finished(question: &FinishedQuestion) -> Ending {
    ENDINGS.with(|answers| {
        answers.of(question, |question| {
            let (node, purpose) = (question.node, question.purpose);
            let operation_id = names::backup_operation(node, question.backup, purpose);
            let requested_at = names::asked_at(question.backup);
            let window = if question.late {
                budget::COMMIT_WINDOW
            } else {
                0
            };
            let facts = FinishedFacts {
                requested_at,
                invocation: invocation(question.status, &operation_id, question.reported),
                command: BackupCommand {
                    operation_id,
                    backup_id: names::backup_id(question.backup),
                    purpose: shipped_purpose(purpose),
                },
                now: requested_at + budget::seconds(window + 1),
            };
            match finished_decide::on_finished(&facts) {
                finished_decide::Ending::StillRunning(_) => Ending::StillRunning,
                finished_decide::Ending::Commit(report) => {
                    Ending::Commit(names::run(&report.run_id))
                }
                finished_decide::Ending::TooLate(backup) => Ending::TooLate(names::backup(&backup)),
                finished_decide::Ending::Busy => Ending::Busy,
                finished_decide::Ending::NotRestored(_) => Ending::NotRestored,
                finished_decide::Ending::Cancelled(_) => Ending::Cancelled,
                finished_decide::Ending::Failed(_) => Ending::Failed,
            }
        })
    })
}

/// A final backup that was asked for before.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct LastCommand {
    pub(in crate::model) command: CommandNumber,
    pub(in crate::model) status: Status,
    pub(in crate::model) busy: bool,
    pub(in crate::model) overdue: bool,
}

/// What the terminate hook depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct LeavingQuestion {
    pub(in crate::model) standing: Standing,
    pub(in crate::model) agent: Agent,
    pub(in crate::model) command: Option<LastCommand>,
}

/// What is done about the terminate hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum Leaving {
    Nothing,
    Send,
    Cancel(CommandNumber),
    Settle(CommandNumber),
    GiveUp,
}

/// Asks what is done about the terminate hook.
pub(in crate::model) fn leaving(question: &LeavingQuestion) -> Leaving {
    LEAVING.with(|answers| {
        answers.of(question, |question| {
            let requested_at = names::asked_at(0);
            let overdue = question.command.as_ref().is_some_and(|last| last.overdue);
            let elapsed = if overdue { 2 * budget::DELIVERY } else { 1 };
            let command = question.command.as_ref().map(|last| FinalCommand {
                command_id: names::command_id(last.command),
                requested_at,
                status: Some(status(last.status)),
                busy: last.busy,
            });
            let facts = TerminatingFacts {
                state: lifecycle(question.standing),
                ping: ping(question.agent),
                command,
                now: requested_at + Duration::seconds(elapsed.into()),
            };
            match on_terminating(&facts) {
                TerminatingDecision::NotLeaving
                | TerminatingDecision::NothingWaits
                | TerminatingDecision::Wait { .. } => Leaving::Nothing,
                TerminatingDecision::Send => Leaving::Send,
                TerminatingDecision::Cancel(id) => Leaving::Cancel(names::command(&id)),
                TerminatingDecision::Finish(id) => Leaving::Settle(names::command(&id)),
                TerminatingDecision::GiveUp(_) => Leaving::GiveUp,
            }
        })
    })
}

/// Asks whether the terminate hook is answered. A group that retains what is abandoned is not modelled.
pub(in crate::model) fn answers(last: Last) -> bool {
    let last = match last {
        Last::Committed => FinalBackup::Committed,
        Last::NothingToSave => FinalBackup::NothingToSave,
        Last::Failed | Last::GivenUp => FinalBackup::Failed,
        Last::Cancelled => FinalBackup::Cancelled,
    };
    answer(last, false) == Some(LifecycleResult::Continue)
}

fn ping(agent: Agent) -> Option<Ping> {
    match agent {
        Agent::Unregistered => None,
        Agent::Online => Some(Ping::Online),
        Agent::Lost => Some(Ping::ConnectionLost),
    }
}

fn lifecycle(standing: Standing) -> Option<LifecycleState> {
    match standing {
        Standing::Waiting => Some(LifecycleState::PendingWait),
        Standing::Serving => Some(LifecycleState::InService),
        Standing::Leaving => Some(LifecycleState::TerminatingWait),
        Standing::Left => Some(LifecycleState::TerminatingProceed),
        Standing::Gone => None,
    }
}

fn status(status: Status) -> InvocationStatus {
    // What it reports is looked at by `finished`; here only where it stands counts.
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
