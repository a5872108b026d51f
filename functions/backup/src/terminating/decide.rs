//! The rules by which an instance in its terminate hook gets a final backup.

#[cfg(test)]
mod tests;

use shared::aws::autoscaling::LifecycleState;
use shared::aws::ssm::{InvocationStatus, Ping};
use shared::budget::{self, seconds};
use shared::id::CommandId;
use time::OffsetDateTime;

/// A final backup that was requested before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalCommand {
    /// The command.
    pub command_id: CommandId,
    /// When it was sent.
    pub requested_at: OffsetDateTime,
    /// Its status on the instance, or `None` in the first seconds, when SSM does not list it yet.
    pub status: Option<InvocationStatus>,
    /// Whether it ended because the node was busy.
    pub busy: bool,
}

/// The facts about an instance in its terminate hook.
#[derive(Debug, Clone)]
pub struct TerminatingFacts {
    /// The instance's state in its group, `None` if it has left.
    pub state: Option<LifecycleState>,
    /// Its ping, `None` if its SSM agent is not registered.
    pub ping: Option<Ping>,
    /// The newest final backup that was requested.
    pub command: Option<FinalCommand>,
    /// The time of this decision.
    pub now: OffsetDateTime,
}

/// How far an instance is on its way out of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// It does not leave: it serves, or is about to.
    NotYet,
    /// It leaves, and has not passed its terminate hook.
    Now,
    /// It has passed its terminate hook.
    Past,
}

/// Returns how far an instance is on its way out of its group. `None` means that it has left.
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

/// Returns whether an undelivered command is so old that no agent will accept it.
pub fn is_overdue(requested_at: OffsetDateTime, now: OffsetDateTime) -> bool {
    /// Seconds after SSM's own delivery timeout.
    const GRACE: u32 = 5;
    now - requested_at > seconds(budget::DELIVERY + GRACE)
}

/// The decision about an instance in its terminate hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TerminatingDecision {
    /// It does not leave its group: its node serves and must not be stopped.
    NotLeaving,
    /// It does not wait any more.
    NothingWaits,
    /// Request its final backup.
    Send,
    /// Its final backup is not delivered yet, or running.
    Wait {
        /// The command that requests it.
        command_id: CommandId,
        /// When it was sent.
        requested_at: OffsetDateTime,
    },
    /// Its final backup was not delivered in time: cancel it, then answer the hook.
    Cancel(CommandId),
    /// Its final backup ended: commit it, then answer the hook.
    Finish(CommandId),
    /// No final backup is possible: answer the hook at once. Contains the reason.
    GiveUp(&'static str),
}

impl TerminatingDecision {
    /// Returns the decision's name in the log and the answer.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotLeaving => "not-terminating",
            Self::NothingWaits => "nothing-waits",
            Self::Send => "send-final-backup",
            Self::Wait { .. } => "wait-for-final-backup",
            Self::Cancel(_) => "cancel-final-backup",
            Self::Finish(_) => "finish-final-backup",
            Self::GiveUp(_) => "give-up-final-backup",
        }
    }

    /// Returns the command that the decision concerns.
    pub fn command_id(&self) -> Option<&CommandId> {
        match self {
            Self::Wait { command_id, .. } | Self::Cancel(command_id) | Self::Finish(command_id) => {
                Some(command_id)
            }
            _ => None,
        }
    }
}

/// Decides about an instance in its terminate hook.
pub fn on_terminating(facts: &TerminatingFacts) -> TerminatingDecision {
    use TerminatingDecision as Decision;
    match leaving(facts.state.as_ref()) {
        // An event may be late, repeated or forged. It must never stop a node that serves.
        Leaving::NotYet => return Decision::NotLeaving,
        Leaving::Past => return Decision::NothingWaits,
        Leaving::Now => {}
    }
    match &facts.command {
        // Retry while the node is busy. Its immediate answer also proves that it is alive, and the first answer after
        // the other command's end is the backup.
        Some(command) if command.busy => {}
        Some(command) => {
            let (command_id, requested_at) = (command.command_id.clone(), command.requested_at);
            return match &command.status {
                Some(status) if status.is_finished() => Decision::Finish(command_id),
                Some(status) if !status.is_undelivered() => Decision::Wait {
                    command_id,
                    requested_at,
                },
                _ if is_overdue(requested_at, facts.now) => Decision::Cancel(command_id),
                _ => Decision::Wait {
                    command_id,
                    requested_at,
                },
            };
        }
        None => {}
    }
    match facts.ping {
        Some(Ping::Online) => Decision::Send,
        Some(Ping::ConnectionLost) => Decision::GiveUp("its SSM agent does not answer"),
        None => Decision::GiveUp("its SSM agent is not registered"),
    }
}
