//! The rules of the circuit breaker. They use only the given facts: no calls, no clock, no log.
//!
//! When the breaker trips, it opens: Rekindle suspends the group's launches. After a wait it half-opens: Rekindle
//! resumes them to try one launch. If that launch succeeds, the breaker closes. If it fails, the breaker trips again
//! and waits twice as long.

use std::time::Duration;

use shared::aws::autoscaling::launches::{Launch, LaunchEnd};
use shared::aws::breaker::Breaker;
use shared::budget;
use shared::id::InstanceId;
use time::OffsetDateTime;

/// The number of failed launches in a row that trips the breaker if none of the failures is permanent.
pub const MOST_FAILURES: u32 = 3;

/// The facts about a launch that is about to be abandoned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedLaunch {
    /// When the facts were gathered.
    pub now: OffsetDateTime,
    /// The instance.
    pub instance_id: InstanceId,
    /// Whether the next launch would fail for the same reason until somebody changes something.
    pub permanent: bool,
    /// The group's newest launches, newest first, with or without this one.
    pub launches: Vec<Launch>,
    /// Whether the group's launches are suspended now, by Rekindle or by somebody else.
    pub suspended: bool,
    /// The record of the group's breaker.
    pub breaker: Option<Breaker>,
}

/// The decision about a failed launch, before it is abandoned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnFailure {
    /// Do nothing: the group launches another instance.
    Relaunch {
        /// The number of failed launches in a row, including this one.
        failures: u32,
    },
    /// Trip the breaker: write this record, then suspend the group's launches.
    Trip {
        /// The number of failed launches in a row, including this one.
        failures: u32,
        /// The record.
        breaker: Breaker,
    },
    /// Do nothing: Rekindle suspended the group's launches before.
    AlreadyTripped,
    /// Do nothing: somebody else suspended the group's launches.
    SuspendedBySomebodyElse,
}

/// Returns the decision about a launch that is about to be abandoned.
pub fn on_failure(facts: &FailedLaunch) -> OnFailure {
    match &facts.breaker {
        // This launch tripped the breaker, but its pass was cut off before the suspension. The wait starts again: if it
        // counted from the first record, a trial might be due before the next pass has suspended the launches.
        Some(Breaker::Open {
            trips, instance_id, ..
        }) if *instance_id == facts.instance_id && !facts.suspended => {
            facts.trip(*trips, facts.failures_since(None))
        }
        Some(Breaker::Open { .. }) if facts.suspended => OnFailure::AlreadyTripped,
        _ if facts.suspended => OnFailure::SuspendedBySomebodyElse,
        // Open and not suspended: somebody resumed the launches, or a sweep was cut off while half-opening.
        Some(
            Breaker::Open {
                trips, tripped_at, ..
            }
            | Breaker::HalfOpen { trips, tripped_at },
        ) if !succeeded_since(&facts.launches, *tripped_at) => {
            facts.trip(trips.saturating_add(1), facts.failures_since(None))
        }
        Some(Breaker::Closed { closed_at }) => facts.first_trip(Some(*closed_at)),
        _ => facts.first_trip(None),
    }
}

impl FailedLaunch {
    fn first_trip(&self, since: Option<OffsetDateTime>) -> OnFailure {
        let failures = self.failures_since(since);
        if self.permanent || failures >= MOST_FAILURES {
            self.trip(1, failures)
        } else {
            OnFailure::Relaunch { failures }
        }
    }

    fn trip(&self, trips: u32, failures: u32) -> OnFailure {
        OnFailure::Trip {
            failures,
            breaker: Breaker::Open {
                trips,
                tripped_at: self.now,
                instance_id: self.instance_id.clone(),
            },
        }
    }

    /// Returns the number of failed launches in a row, including this one. Launches before `since` do not count, nor do
    /// launches that have not ended. A launch without an instance does not count, because its failure has nothing to do
    /// with restores.
    fn failures_since(&self, since: Option<OffsetDateTime>) -> u32 {
        let newest_first = self.launches.iter();
        let counted = newest_first
            .take_while(|launch| launch.end != LaunchEnd::Successful)
            .filter(|launch| since.is_none_or(|since| launch.started_at >= since))
            .filter(|launch| launch.end == LaunchEnd::Failed)
            .filter_map(|launch| launch.instance_id.as_ref())
            .filter(|instance| *instance != &self.instance_id);
        u32::try_from(counted.count()).map_or(u32::MAX, |earlier| earlier.saturating_add(1))
    }
}

/// Returns whether a launch has succeeded since the breaker tripped. An operator may have put an instance into service,
/// and the record does not contain this.
fn succeeded_since(launches: &[Launch], tripped_at: OffsetDateTime) -> bool {
    let successful = |it: &Launch| it.end == LaunchEnd::Successful && it.started_at >= tripped_at;
    launches.iter().any(successful)
}

/// The decision about a launch that is about to be admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnSuccess {
    /// Do nothing: the breaker is closed.
    Nothing,
    /// Close the breaker: write this record.
    Close {
        /// Whether to resume the group's launches first.
        resume: bool,
        /// The record.
        breaker: Breaker,
    },
}

/// Returns the decision about a launch that succeeded.
pub fn on_success(breaker: Option<&Breaker>, now: OffsetDateTime) -> OnSuccess {
    match breaker {
        None | Some(Breaker::Closed { .. }) => OnSuccess::Nothing,
        Some(open @ (Breaker::Open { .. } | Breaker::HalfOpen { .. })) => OnSuccess::Close {
            // The launches are still suspended: a launch that began before the breaker tripped has succeeded.
            resume: matches!(open, Breaker::Open { .. }),
            breaker: Breaker::Closed { closed_at: now },
        },
    }
}

/// The facts for a sweep's decision about a group's breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedGroup {
    /// When the facts were gathered.
    pub now: OffsetDateTime,
    /// The instances that wait in the launch hook.
    pub waiting: Vec<InstanceId>,
    /// Whether the group's launches are suspended now, by Rekindle or by somebody else.
    pub suspended: bool,
    /// The record of the group's breaker.
    pub breaker: Option<Breaker>,
}

/// A sweep's decision about a group's breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnSweep {
    /// Do nothing: the breaker is closed, half-open or not due, or somebody else suspended the launches.
    Nothing,
    /// Try a launch: resume the group's launches, then write this record.
    HalfOpen(Breaker),
    /// Somebody resumed the launches: write this record. A later suspension counts as somebody else's.
    RecordResumed(Breaker),
}

/// Returns a sweep's decision about a group's breaker.
pub fn on_sweep(facts: &WatchedGroup) -> OnSweep {
    let Some(Breaker::Open {
        trips,
        tripped_at,
        instance_id,
    }) = &facts.breaker
    else {
        return OnSweep::Nothing;
    };
    // The pass that trips the breaker has not ended.
    if facts.waiting.contains(instance_id) {
        return OnSweep::Nothing;
    }
    let (trips, tripped_at) = (*trips, *tripped_at);
    let half_open = Breaker::HalfOpen { trips, tripped_at };
    let age = facts.now - tripped_at;
    if facts.suspended && age >= wait(trips) {
        OnSweep::HalfOpen(half_open)
    } else if !facts.suspended
        && age >= budget::seconds(budget::SUSPENSION_DELAY)
        // A launch on trial writes its own record, which this one must not overwrite. Otherwise a suspension by
        // Rekindle would count as somebody else's, and nobody would resume it.
        && facts.waiting.is_empty()
    {
        OnSweep::RecordResumed(half_open)
    } else {
        OnSweep::Nothing
    }
}

/// Returns the time for which launches stay suspended after this number of trips in a row.
pub fn wait(trips: u32) -> Duration {
    let doublings = trips.saturating_sub(1).min(16);
    let wait = budget::BREAKER_FIRST_WAIT << doublings;
    budget::seconds(wait.min(budget::BREAKER_LONGEST_WAIT))
}

/// The decision about an operator's request to resume, for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnResume {
    /// Resume the group's launches, then write this record.
    Resume(Breaker),
    /// The launches are not suspended, but the breaker is not closed: write this record.
    Close {
        /// Whether to resume the group's launches: if the breaker is open, a suspension may still take effect.
        resume: bool,
        /// The record.
        breaker: Breaker,
    },
    /// Do nothing: Rekindle suspended nothing.
    NothingToDo,
    /// Somebody else suspended the launches, so the operator has to resume them in Auto Scaling. If there is a record,
    /// write it: it closes the breaker.
    SuspendedBySomebodyElse(Option<Breaker>),
}

/// Returns the decision about an operator's request to resume.
pub fn on_resume(breaker: Option<&Breaker>, suspended: bool, now: OffsetDateTime) -> OnResume {
    let closed = Breaker::Closed { closed_at: now };
    match (breaker, suspended) {
        (Some(Breaker::Open { .. }), true) => OnResume::Resume(closed),
        (Some(Breaker::HalfOpen { .. }), true) => OnResume::SuspendedBySomebodyElse(Some(closed)),
        (None | Some(Breaker::Closed { .. }), true) => OnResume::SuspendedBySomebodyElse(None),
        (Some(known @ (Breaker::Open { .. } | Breaker::HalfOpen { .. })), false) => {
            OnResume::Close {
                resume: matches!(known, Breaker::Open { .. }),
                breaker: closed,
            }
        }
        (None | Some(Breaker::Closed { .. }), false) => OnResume::NothingToDo,
    }
}

#[cfg(test)]
mod tests;
