//! What to do about an instance in the launch hook: decided from facts, without doing anything.

pub mod breaker;
pub mod in_place;

use shared::aws::autoscaling::LifecycleState;
use shared::budget;
use shared::id::{ApplicationName, CommandId, InstanceId};
use shared::report::RestoreReport;
use time::OffsetDateTime;

use crate::attempt::{Attempt, Progress};
use crate::reason::Reason;

/// Everything that the decision about one instance rests on, as one pass found it.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// When the facts were gathered.
    pub now: OffsetDateTime,
    /// The instance.
    pub instance_id: InstanceId,
    /// Its group; empty where no group has it.
    pub group: String,
    /// Where the instance stands in its group now, whatever the event said.
    pub standing: Standing,
    /// The application that the group's tag names, or why it names none.
    pub application: Result<ApplicationName, String>,
    /// Whether the event said that the instance keeps its id and lost its disk.
    pub root_volume_replaced: bool,
    /// When the instance was launched, or taken out of the warm pool.
    pub launched_at: OffsetDateTime,
    /// Another member of the group that may still write what the restore would lack.
    pub predecessor: Option<Predecessor>,
    /// What SSM knows of the instance's agent.
    pub agent: Agent,
    /// The restore commands of this instance since its launch.
    pub attempts: Vec<Attempt>,
}

/// Where an instance stands in its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// In the launch hook, on its way into service.
    Waiting,
    /// In the launch hook, on its way into the warm pool.
    WaitingForWarmPool,
    /// Anywhere else; the state's name, or that no group has the instance.
    Elsewhere(String),
}

impl Standing {
    /// Returns AWS' word for it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Waiting => LifecycleState::PendingWait.as_str(),
            Self::WaitingForWarmPool => LifecycleState::WarmedPendingWait.as_str(),
            Self::Elsewhere(state) => state,
        }
    }
}

/// Another member of the group that the restore has to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Predecessor {
    /// It is terminating: its final backup may still come.
    Leaving(InstanceId),
    /// It is healthy and in service: every backup is older than what it holds, and two nodes would serve one
    /// application.
    Active(InstanceId),
}

impl Predecessor {
    /// Returns the member.
    pub fn instance_id(&self) -> &InstanceId {
        match self {
            Self::Leaving(instance_id) | Self::Active(instance_id) => instance_id,
        }
    }
}

/// What SSM knows of an instance's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agent {
    /// It never registered.
    Unregistered,
    /// It registered, and does not answer now: a reboot, or worse.
    Lost,
    /// It answers.
    Online,
}

/// What to do about one instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The instance does not wait in the launch hook any more: nothing to do.
    AlreadyResolved {
        /// Its state.
        state: String,
    },
    /// The group names no application, so its instances are not ours to answer for.
    NotProtected {
        /// Why, and what to do.
        problem: String,
    },
    /// The instance goes into the warm pool, where it serves nobody: let it pass, without a restore.
    PassIntoWarmPool,
    /// The SSM agent does not answer yet.
    WaitForAgent,
    /// The fence: a predecessor's final backup may still come, or it has not even begun to leave.
    WaitForPredecessor {
        /// The predecessor.
        predecessor: InstanceId,
    },
    /// The instance is ready for its restore: look at the backups, then `choose::source` decides.
    ChooseBackup {
        /// The predecessor that was still terminating when the fence's time was over.
        fence_broken_by: Option<InstanceId>,
    },
    /// A restore is under way: send nothing.
    AlreadyRunning {
        /// Its command.
        command_id: CommandId,
        /// Whether it shows enough life to be given more time in the hook.
        heartbeat: bool,
    },
    /// The node is ready: let it into service.
    Continue {
        /// The command that made it so.
        command_id: CommandId,
        /// What the node says it has.
        report: RestoreReport,
    },
    /// This instance will not become a good node: have it replaced.
    Abandon(Reason),
}

/// Decides about one instance.
pub fn instance(facts: &Facts) -> Decision {
    if let Standing::Elsewhere(state) = &facts.standing {
        let state = state.clone();
        return Decision::AlreadyResolved { state };
    }
    if let Err(problem) = &facts.application {
        let problem = problem.clone();
        return Decision::NotProtected { problem };
    }
    // The state decides, not the event's destination: a late event of the way into the pool must not let an
    // empty instance out of it.
    if facts.standing == Standing::WaitingForWarmPool {
        return Decision::PassIntoWarmPool;
    }
    if facts.root_volume_replaced {
        return Decision::Abandon(Reason::RootVolumeReplaced);
    }
    if let Some(decision) = on_attempts(facts) {
        return decision;
    }
    match facts.agent {
        Agent::Unregistered if facts.waited_longer_than(budget::SSM_READY) => {
            return Decision::Abandon(Reason::AgentNeverCame);
        }
        Agent::Unregistered => return Decision::WaitForAgent,
        Agent::Lost | Agent::Online => {}
    }
    let fence_holds = !facts.waited_longer_than(budget::FENCE);
    let fence_broken_by = match &facts.predecessor {
        Some(predecessor) if fence_holds => {
            let predecessor = predecessor.instance_id().clone();
            return Decision::WaitForPredecessor { predecessor };
        }
        Some(Predecessor::Active(active)) => {
            return Decision::Abandon(Reason::PredecessorActive {
                instance_id: active.clone(),
            });
        }
        Some(Predecessor::Leaving(leaving)) => Some(leaving.clone()),
        None => None,
    };
    if facts.agent == Agent::Lost {
        return agent_silent(facts);
    }
    Decision::ChooseBackup { fence_broken_by }
}

/// Decides about an instance whose agent was there once and takes no command now: a reboot is given the time
/// that is left before the hook would need a heartbeat.
pub fn agent_silent(facts: &Facts) -> Decision {
    if facts.waited_longer_than(budget::SSM_READY + budget::FENCE) {
        Decision::Abandon(Reason::AgentLost)
    } else {
        Decision::WaitForAgent
    }
}

/// Decides from the commands that were sent; none where there are none.
fn on_attempts(facts: &Facts) -> Option<Decision> {
    let attempts = || facts.attempts.iter();
    // A good node never waits this long for its answer. What looks like one is a success from an earlier stay
    // in the hook, with a disk that has been replaced since.
    if attempts().len() > 0 && facts.waited_longer_than(budget::HARD_CAP) {
        return Some(Decision::Abandon(Reason::HardCap));
    }
    let succeeded = || {
        let successes = attempts().filter_map(|attempt| match &attempt.progress {
            Progress::Succeeded(report) => Some((attempt, report)),
            _ => None,
        });
        // The first one did the work; a later one has found it done.
        let (attempt, report) = successes.min_by_key(|(attempt, _)| attempt.requested_at)?;
        Some(Decision::Continue {
            command_id: attempt.command_id.clone(),
            report: report.clone(),
        })
    };
    let running = || {
        let executing = attempts().find(|attempt| attempt.progress == Progress::Executing);
        let unclear = || attempts().find(|attempt| attempt.progress == Progress::Unclear);
        let attempt = executing.or_else(unclear)?;
        Some(Decision::AlreadyRunning {
            command_id: attempt.command_id.clone(),
            // A dead agent's command shows InProgress until SSM's own timeouts are over.
            heartbeat: executing.is_some() && facts.agent == Agent::Online,
        })
    };
    let failed = || {
        let failures = attempts().filter_map(|attempt| match &attempt.progress {
            Progress::Failed(failure) => Some((attempt, failure)),
            _ => None,
        });
        // `Busy` only says that another command was at work: that one's failure is the cause.
        let (attempt, failure) =
            failures.max_by_key(|(attempt, failure)| (!failure.is_busy(), attempt.requested_at))?;
        Some(Decision::Abandon(Reason::RestoreFailed {
            command_id: attempt.command_id.clone(),
            failure: failure.clone(),
        }))
    };
    succeeded().or_else(running).or_else(failed)
}

impl Decision {
    /// Returns the decision's name in the log and in the function's answer.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AlreadyResolved { .. } => "already-resolved",
            Self::NotProtected { .. } => "not-protected",
            Self::PassIntoWarmPool => "pass-into-warm-pool",
            Self::WaitForAgent => "wait-for-agent",
            Self::WaitForPredecessor { .. } => "wait-for-predecessor",
            Self::ChooseBackup { .. } => "choose-backup",
            Self::AlreadyRunning { .. } => "already-running",
            Self::Continue { .. } => "continue",
            Self::Abandon(_) => "abandon",
        }
    }

    /// Returns the command that the decision is about.
    pub fn command_id(&self) -> Option<&CommandId> {
        match self {
            Self::AlreadyRunning { command_id, .. }
            | Self::Continue { command_id, .. }
            | Self::Abandon(Reason::RestoreFailed { command_id, .. }) => Some(command_id),
            _ => None,
        }
    }
}

impl Facts {
    /// Returns how long the instance has been waiting, in seconds.
    pub fn waited_seconds(&self) -> i64 {
        (self.now - self.launched_at).whole_seconds()
    }

    /// Tells whether the instance has to be abandoned now, even where the breaker's calls do not succeed: its hook
    /// would expire before they are tried again often enough.
    pub fn breaker_patience_is_over(&self) -> bool {
        self.waited_longer_than(budget::BREAKER_PATIENCE)
    }

    fn waited_longer_than(&self, limit: u32) -> bool {
        self.now - self.launched_at > budget::seconds(limit)
    }
}

#[cfg(test)]
mod tests;
