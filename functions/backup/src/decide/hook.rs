//! What is done about an instance in its terminate hook: decided from facts alone, as in all of `decide`.

use shared::aws::autoscaling::{LifecycleResult, LifecycleState};
use shared::aws::ssm::{InvocationStatus, Ping};
use shared::budget;
use shared::id::{CommandId, InstanceId, OperationId};
use time::OffsetDateTime;

use super::seconds;

/// What a final backup came to, as far as its hook is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalBackup {
    /// It is in S3, committed or kept aside.
    Committed,
    /// There was nothing to save.
    NothingToSave,
    /// The node was busy with another command, which may end in time.
    Postponed,
    /// It will not come.
    Failed,
    /// It will not come, and whoever answers the hook tells it.
    Cancelled,
}

/// Decides the answer to the terminate hook; none leaves the instance waiting for the next sweep.
pub fn answer(backup: FinalBackup, retains_on_abandon: bool) -> Option<LifecycleResult> {
    match backup {
        FinalBackup::Postponed => None,
        // The disk holds what was not saved. Where the group does not keep it, waiting would not save it either.
        FinalBackup::Failed | FinalBackup::Cancelled if retains_on_abandon => {
            Some(LifecycleResult::Abandon)
        }
        FinalBackup::Committed
        | FinalBackup::NothingToSave
        | FinalBackup::Failed
        | FinalBackup::Cancelled => Some(LifecycleResult::Continue),
    }
}

/// Returns the operation of an instance's final backup: every path to it must come to the same id.
pub fn final_operation(instance: &InstanceId) -> Option<OperationId> {
    format!("final-{instance}").parse().ok()
}

/// A final backup that was asked for before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalCommand {
    /// The command.
    pub command_id: CommandId,
    /// When it was sent.
    pub requested_at: OffsetDateTime,
    /// Where it stands on the instance; none in the seconds in which SSM does not know yet.
    pub status: Option<InvocationStatus>,
    /// Whether it ended because the node was busy.
    pub busy: bool,
}

/// What the terminate hook depends on.
#[derive(Debug, Clone)]
pub struct TerminatingFacts {
    /// Where the instance stands in its group; none where it has left.
    pub state: Option<LifecycleState>,
    /// What SSM says of it; none where its agent is not registered.
    pub ping: Option<Ping>,
    /// The newest final backup that was asked for.
    pub command: Option<FinalCommand>,
    /// The time of this decision.
    pub now: OffsetDateTime,
}

/// How far an instance is on its way out of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// It has not begun: it serves, or is about to.
    NotYet,
    /// It leaves, and its terminate hook is before it or holds it.
    Now,
    /// Its terminate hook lies behind it.
    Past,
}

/// Tells how far an instance is on its way out; no state means that it has left.
pub fn leaving(state: Option<&LifecycleState>) -> Leaving {
    use LifecycleState as S;
    match state {
        Some(
            S::Terminating
            | S::TerminatingWait
            | S::ReplacingRootVolume
            | S::ReplacingRootVolumeWait
            | S::WarmedTerminating
            | S::WarmedTerminatingWait,
        ) => Leaving::Now,
        None
        | Some(
            S::TerminatingProceed
            | S::TerminatingRetained
            | S::Terminated
            | S::ReplacingRootVolumeProceed
            | S::WarmedTerminatingProceed
            | S::WarmedTerminatingRetained
            | S::WarmedTerminated,
        ) => Leaving::Past,
        Some(_) => Leaving::NotYet,
    }
}

/// Tells whether a command that no agent has taken will not be taken any more.
pub fn is_overdue(requested_at: OffsetDateTime, now: OffsetDateTime) -> bool {
    /// How much longer than SSM's own delivery timeout is waited, in seconds.
    const GRACE: u32 = 5;
    now - requested_at > seconds(budget::DELIVERY + GRACE)
}

/// What is done about an instance in the terminate hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Terminating {
    /// It is not on its way out: its node serves, and must not be stopped.
    NotLeaving,
    /// It does not wait any more.
    NothingWaits,
    /// Ask for its final backup.
    Send,
    /// Its final backup is on its way or running.
    Wait {
        /// The command that asks for it.
        command_id: CommandId,
        /// When that was sent.
        requested_at: OffsetDateTime,
    },
    /// Its final backup was never delivered: cancel it, then answer the hook.
    Cancel(CommandId),
    /// Its final backup ended: commit it, then answer the hook.
    Settle(CommandId),
    /// No final backup can come: answer the hook at once.
    GiveUp(&'static str),
}

impl Terminating {
    /// Returns the decision's name in the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotLeaving => "NotLeaving",
            Self::NothingWaits => "NothingWaits",
            Self::Send => "Send",
            Self::Wait { .. } => "Wait",
            Self::Cancel(_) => "Cancel",
            Self::Settle(_) => "Settle",
            Self::GiveUp(_) => "GiveUp",
        }
    }

    /// Returns the command that the decision is about.
    pub fn command_id(&self) -> Option<&CommandId> {
        match self {
            Self::Wait { command_id, .. } | Self::Cancel(command_id) | Self::Settle(command_id) => {
                Some(command_id)
            }
            _ => None,
        }
    }
}

/// Decides what is done about an instance in the terminate hook.
pub fn on_terminating(facts: &TerminatingFacts) -> Terminating {
    match leaving(facts.state.as_ref()) {
        // An event may be late, come twice, or be made up: a node that serves must never be stopped by one.
        Leaving::NotYet => return Terminating::NotLeaving,
        Leaving::Past => return Terminating::NothingWaits,
        Leaving::Now => {}
    }
    match &facts.command {
        // A busy node is asked again each time: it answers at once, which also is the only fresh sign that it
        // lives, and the first answer after the other command's end is the backup.
        Some(command) if command.busy => {}
        Some(command) => {
            let (command_id, requested_at) = (command.command_id.clone(), command.requested_at);
            return match &command.status {
                Some(status) if status.is_finished() => Terminating::Settle(command_id),
                Some(status) if !status.is_undelivered() => Terminating::Wait {
                    command_id,
                    requested_at,
                },
                _ if is_overdue(requested_at, facts.now) => Terminating::Cancel(command_id),
                _ => Terminating::Wait {
                    command_id,
                    requested_at,
                },
            };
        }
        None => {}
    }
    match facts.ping {
        Some(Ping::Online) => Terminating::Send,
        Some(Ping::ConnectionLost) => Terminating::GiveUp("its SSM agent does not answer"),
        None => Terminating::GiveUp("its SSM agent is not registered"),
    }
}
