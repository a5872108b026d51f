//! The decision about an instance in the launch hook. It uses only the given facts: no calls, no clock, no log.

use shared::aws::autoscaling::LifecycleState;
use shared::aws::ssm::Ping;
use shared::budget;
use shared::id::{ApplicationName, CommandId, InstanceId};
use shared::report::RestoreReport;
use shared::verdict::Verdict;
use time::OffsetDateTime;

use super::reason::Reason;
use crate::attempts::RestoreAttempt;

/// The facts about one instance, as one pass found them.
#[derive(Debug, Clone, PartialEq)]
pub struct LaunchFacts {
    /// When the facts were gathered.
    pub now: OffsetDateTime,
    /// The instance.
    pub instance_id: InstanceId,
    /// Its group; empty if it is in no group.
    pub group: String,
    /// Its current state in its group, or `None` if it is in no group. The event's state may be out of date.
    pub state: Option<LifecycleState>,
    /// The application in the group's tag, or the reason why there is none.
    pub application: Result<ApplicationName, String>,
    /// Whether the event is of a replaced root volume: the instance keeps its id and loses its disk.
    pub root_volume_replaced: bool,
    /// When the instance was launched, or left the warm pool.
    pub launched_at: OffsetDateTime,
    /// Another member of the group that may still write data.
    pub predecessor: Option<Predecessor>,
    /// The state of the instance's SSM agent, or `None` if it never registered.
    pub ping: Option<Ping>,
    /// The restore commands of this instance since its launch.
    pub attempts: Vec<RestoreAttempt>,
}

/// Another member of the group that the restore has to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Predecessor {
    /// It is terminating: its final backup may still come.
    Terminating(InstanceId),
    /// It is healthy and in service: its data are newer than every backup, and a second node must not serve.
    Active(InstanceId),
}

impl Predecessor {
    /// Returns the member's instance id.
    pub fn instance_id(&self) -> &InstanceId {
        match self {
            Self::Terminating(instance_id) | Self::Active(instance_id) => instance_id,
        }
    }
}

/// The decision about one instance.
#[derive(Debug, Clone, PartialEq)]
pub enum LaunchDecision {
    /// Do nothing: the instance does not wait in the launch hook any more.
    AlreadyResolved,
    /// Do not answer the hook: the group has no application.
    NotProtected {
        /// The reason.
        problem: String,
    },
    /// Let the instance pass into the warm pool without a restore: it is not in service there.
    PassIntoWarmPool,
    /// Wait: the SSM agent is not online yet.
    WaitForAgent,
    /// Wait (the fence): a predecessor's final backup may still come.
    WaitForPredecessor {
        /// The predecessor.
        predecessor: InstanceId,
    },
    /// The instance is ready for its restore: list the backups, then `candidates::choose` decides.
    ChooseBackup {
        /// The predecessor that is still terminating at the end of the fence's time limit.
        fence_broken_by: Option<InstanceId>,
    },
    /// Send nothing: a restore is running.
    AlreadyRunning {
        /// Its command.
        command_id: CommandId,
        /// Whether to send a heartbeat, which extends the hook's timeout: the restore is visibly running.
        heartbeat: bool,
    },
    /// Admit the instance: the node is ready.
    Admit {
        /// The command that succeeded.
        command_id: CommandId,
        /// Its report.
        report: RestoreReport,
    },
    /// Abandon the instance.
    Abandon(Reason),
}

/// Returns the decision about one instance.
pub fn decide(facts: &LaunchFacts) -> LaunchDecision {
    let state = facts.state.as_ref();
    if !state.is_some_and(LifecycleState::is_in_launch_hook) {
        return LaunchDecision::AlreadyResolved;
    }
    if let Err(problem) = &facts.application {
        let problem = problem.clone();
        return LaunchDecision::NotProtected { problem };
    }
    // The current state decides, not the event's destination. A late event of an instance that entered the warm pool
    // must not admit it without data when it leaves the pool.
    if facts.state == Some(LifecycleState::WarmedPendingWait) {
        return LaunchDecision::PassIntoWarmPool;
    }
    if facts.root_volume_replaced {
        return LaunchDecision::Abandon(Reason::RootVolumeReplaced);
    }
    if let Some(decision) = on_attempts(facts) {
        return decision;
    }
    if facts.ping.is_none() {
        return if facts.waited_longer_than(budget::SSM_READY) {
            LaunchDecision::Abandon(Reason::AgentNeverCame)
        } else {
            LaunchDecision::WaitForAgent
        };
    }
    let fence_holds = !facts.waited_longer_than(budget::FENCE);
    let fence_broken_by = match &facts.predecessor {
        Some(predecessor) if fence_holds => {
            let predecessor = predecessor.instance_id().clone();
            return LaunchDecision::WaitForPredecessor { predecessor };
        }
        Some(Predecessor::Active(active)) => {
            return LaunchDecision::Abandon(Reason::PredecessorActive {
                instance_id: active.clone(),
            });
        }
        Some(Predecessor::Terminating(predecessor)) => Some(predecessor.clone()),
        None => None,
    };
    if facts.ping == Some(Ping::ConnectionLost) {
        return agent_silent(facts).map_or(LaunchDecision::WaitForAgent, LaunchDecision::Abandon);
    }
    LaunchDecision::ChooseBackup { fence_broken_by }
}

/// Returns the reason to abandon an instance with a registered SSM agent that does not accept commands now, or `None`
/// if the launch still waits for it. The instance may be rebooting, so it has almost as much time as the hook lasts
/// without a heartbeat.
pub fn agent_silent(facts: &LaunchFacts) -> Option<Reason> {
    let waited = facts.waited_longer_than(budget::SSM_READY + budget::FENCE);
    waited.then_some(Reason::AgentLost)
}

/// Returns the decision from the commands that were sent, or `None` if there are none.
fn on_attempts(facts: &LaunchFacts) -> Option<LaunchDecision> {
    let attempts = || facts.attempts.iter();
    // The hook of a restored node is answered long before the hard cap. An older success is from an earlier stay in the
    // hook, and the disk may have been replaced since.
    if attempts().len() > 0 && facts.waited_longer_than(budget::HARD_CAP) {
        return Some(LaunchDecision::Abandon(Reason::HardCap));
    }
    let succeeded = || {
        let successes = attempts().filter_map(|attempt| match &attempt.verdict {
            Verdict::Succeeded(report) => Some((attempt, report)),
            _ => None,
        });
        // The first command restored; a later one found the node restored.
        let (attempt, report) = successes.min_by_key(|(attempt, _)| attempt.requested_at)?;
        Some(LaunchDecision::Admit {
            command_id: attempt.command_id.clone(),
            report: report.clone(),
        })
    };
    let running = || {
        let executing = attempts().find(|attempt| attempt.verdict == Verdict::Executing);
        let pending = || attempts().find(|attempt| attempt.verdict == Verdict::Pending);
        let attempt = executing.or_else(pending)?;
        Some(LaunchDecision::AlreadyRunning {
            command_id: attempt.command_id.clone(),
            // If the SSM agent dies, the command stays InProgress until its timeouts have passed.
            heartbeat: executing.is_some() && facts.ping == Some(Ping::Online),
        })
    };
    let failed = || {
        let failures = attempts().filter_map(|attempt| match &attempt.verdict {
            Verdict::Failed(failure) => Some((attempt, failure)),
            _ => None,
        });
        // `Busy` means that another command held the node: that command's failure is the cause.
        let (attempt, failure) =
            failures.max_by_key(|(attempt, failure)| (!failure.is_busy(), attempt.requested_at))?;
        Some(LaunchDecision::Abandon(Reason::RestoreFailed {
            command_id: attempt.command_id.clone(),
            failure: failure.clone(),
        }))
    };
    succeeded().or_else(running).or_else(failed)
}

impl LaunchDecision {
    /// Returns the decision's name in the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AlreadyResolved => "already-resolved",
            Self::NotProtected { .. } => "not-protected",
            Self::PassIntoWarmPool => "pass-into-warm-pool",
            Self::WaitForAgent => "wait-for-agent",
            Self::WaitForPredecessor { .. } => "wait-for-predecessor",
            Self::ChooseBackup { .. } => "choose-backup",
            Self::AlreadyRunning { .. } => "already-running",
            Self::Admit { .. } => "admit-restored",
            Self::Abandon(_) => "abandon",
        }
    }

    /// Returns the command that the decision is about, or `None` if there is none.
    pub fn command_id(&self) -> Option<&CommandId> {
        match self {
            Self::AlreadyRunning { command_id, .. } | Self::Admit { command_id, .. } => {
                Some(command_id)
            }
            Self::Abandon(reason) => reason.command_id(),
            _ => None,
        }
    }
}

impl LaunchFacts {
    /// Returns the application, or `None` if the group has none.
    pub fn application(&self) -> Option<&ApplicationName> {
        self.application.as_ref().ok()
    }

    /// Returns how long the instance has been waiting, in seconds.
    pub fn waited_seconds(&self) -> i64 {
        (self.now - self.launched_at).whole_seconds()
    }

    /// Returns whether the instance must be abandoned now even if the breaker's calls fail, because its hook would
    /// expire soon.
    pub fn breaker_patience_is_over(&self) -> bool {
        self.waited_longer_than(budget::BREAKER_PATIENCE)
    }

    fn waited_longer_than(&self, limit: u32) -> bool {
        self.now - self.launched_at > budget::seconds(limit)
    }
}

#[cfg(test)]
mod tests;
