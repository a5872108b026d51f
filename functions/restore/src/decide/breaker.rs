//! The circuit breaker of a group: a failure that repeats does not relaunch for ever.
//!
//! Decided from facts, without doing anything. The breaker trips by suspending the group's launches. It half-opens by
//! resuming them after a while, to try one; what becomes of that one closes it, or trips it again for twice as long.

use std::time::Duration;

use shared::aws::autoscaling::launches::{Launch, LaunchEnd};
use shared::aws::breaker::Breaker;
use shared::budget;
use shared::id::InstanceId;
use time::OffsetDateTime;

/// So many failed launches in a row trip the breaker where each might have been bad luck.
pub const MOST_FAILURES: u32 = 3;

/// What the decision about a launch that is to be abandoned rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedLaunch {
    /// When the facts were gathered.
    pub now: OffsetDateTime,
    /// The instance.
    pub instance_id: InstanceId,
    /// Whether the next one would fail for the same reason: [`crate::reason::Reason::permanent`].
    pub permanent: bool,
    /// The group's newest launches, the newest first, with or without this one.
    pub launches: Vec<Launch>,
    /// Whether the group may launch nothing now, whoever suspended it.
    pub suspended: bool,
    /// What is remembered of the group's breaker.
    pub breaker: Option<Breaker>,
}

/// What to do about a launch that failed, before it is abandoned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnFailure {
    /// Nothing: the group may replace it.
    Relaunch {
        /// How many launches have failed in a row, with this one.
        failures: u32,
    },
    /// Trip the breaker: write this record, then suspend the group's launches.
    Trip {
        /// How many launches have failed in a row, with this one.
        failures: u32,
        /// The record.
        breaker: Breaker,
    },
    /// Nothing: Rekindle suspended the group's launches before.
    AlreadyTripped,
    /// Nothing: somebody else suspended the group's launches, which is not Rekindle's to undo.
    SuspendedBySomebodyElse,
}

/// Decides about a launch that is to be abandoned.
pub fn on_failure(facts: &FailedLaunch) -> OnFailure {
    match &facts.breaker {
        // This launch tripped the breaker, and was cut off before the suspension. The wait begins anew with it: counted
        // from the first record, a trial might be due before another pass over this instance has suspended for good.
        Some(Breaker::Open {
            trips, instance_id, ..
        }) if *instance_id == facts.instance_id && !facts.suspended => {
            facts.trip(*trips, facts.failures_since(None))
        }
        Some(Breaker::Open { .. }) if facts.suspended => OnFailure::AlreadyTripped,
        _ if facts.suspended => OnFailure::SuspendedBySomebodyElse,
        // Open and not suspended: it was half-opened by somebody else, or in a sweep that was cut off.
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

    fn failures_since(&self, since: Option<OffsetDateTime>) -> u32 {
        failures_in_row(&self.launches, &self.instance_id, since)
    }
}

/// Counts the launches that failed in a row, with this one, whatever its own record says already. One for which EC2
/// gave no instance says nothing about restores, and one that is not over says nothing yet.
pub fn failures_in_row(
    launches: &[Launch],
    this: &InstanceId,
    since: Option<OffsetDateTime>,
) -> u32 {
    let earlier = launches
        .iter()
        .take_while(|launch| launch.end != LaunchEnd::Successful)
        .filter(|launch| since.is_none_or(|since| launch.started_at >= since))
        .filter(|launch| launch.end == LaunchEnd::Failed)
        .filter(|launch| launch.instance_id.as_ref().is_some_and(|it| it != this));
    u32::try_from(earlier.count()).map_or(u32::MAX, |earlier| earlier.saturating_add(1))
}

/// An instance may come into service by an operator's hand, of which the record knows nothing.
fn succeeded_since(launches: &[Launch], tripped_at: OffsetDateTime) -> bool {
    let successful = |it: &Launch| it.end == LaunchEnd::Successful && it.started_at >= tripped_at;
    launches.iter().any(successful)
}

/// What to do when a launch is about to be let into service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnSuccess {
    /// Nothing: the breaker is closed.
    Nothing,
    /// Close the breaker: write this record.
    Close {
        /// Whether to resume the group's launches first.
        resume: bool,
        /// The record.
        breaker: Breaker,
    },
}

/// Decides what a launch that succeeded means for the breaker.
pub fn on_success(breaker: Option<&Breaker>, now: OffsetDateTime) -> OnSuccess {
    match breaker {
        None | Some(Breaker::Closed { .. }) => OnSuccess::Nothing,
        Some(open @ (Breaker::Open { .. } | Breaker::HalfOpen { .. })) => OnSuccess::Close {
            // A launch of before the breaker tripped has succeeded after all.
            resume: matches!(open, Breaker::Open { .. }),
            breaker: Breaker::Closed { closed_at: now },
        },
    }
}

/// What the sweep's decision about a group's breaker rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// When the facts were gathered.
    pub now: OffsetDateTime,
    /// The instances that wait in the launch hook.
    pub waiting: Vec<InstanceId>,
    /// Whether the group may launch nothing now, whoever suspended it.
    pub suspended: bool,
    /// What is remembered of the group's breaker.
    pub breaker: Option<Breaker>,
}

/// What the sweep does about a group's breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnSweep {
    /// Nothing: it is closed, on trial, or not due, or somebody else suspended the launches.
    Nothing,
    /// Try a launch: resume the group's launches, then write this record.
    HalfOpen(Breaker),
    /// Somebody resumed the launches, or this function before it could say so: write this record. Whoever suspends
    /// them from now on is somebody else.
    NoteResumed(Breaker),
}

/// Decides what a sweep does about a group's breaker.
pub fn on_sweep(facts: &Watched) -> OnSweep {
    let Some(Breaker::Open {
        trips,
        tripped_at,
        instance_id,
    }) = &facts.breaker
    else {
        return OnSweep::Nothing;
    };
    // Whoever looks after that instance has not come to its end.
    if facts.waiting.contains(instance_id) {
        return OnSweep::Nothing;
    }
    let (trips, tripped_at) = (*trips, *tripped_at);
    let half_open = Breaker::HalfOpen { trips, tripped_at };
    let age = facts.now - tripped_at;
    if facts.suspended && age >= wait(trips) {
        OnSweep::HalfOpen(half_open)
    } else if !facts.suspended
        && age >= budget::seconds(budget::BREAKER_SETTLE)
        // One that is on trial writes what becomes of it, and this record must not come after that: it would say of its
        // suspension that it is somebody else's, for ever.
        && facts.waiting.is_empty()
    {
        OnSweep::NoteResumed(half_open)
    } else {
        OnSweep::Nothing
    }
}

/// Returns how long launches stay suspended after so many trips in a row.
pub fn wait(trips: u32) -> Duration {
    let doublings = trips.saturating_sub(1).min(16);
    let wait = budget::BREAKER_FIRST_WAIT << doublings;
    budget::seconds(wait.min(budget::BREAKER_LONGEST_WAIT))
}

/// What the operator's request to resume comes to in one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnResume {
    /// Resume the group's launches, then write this record.
    Resume(Breaker),
    /// Nothing is suspended now, and the breaker is not closed: write this record.
    Close {
        /// Whether to resume the group's launches: where the breaker is open, a suspension may be on its way.
        resume: bool,
        /// The record.
        breaker: Breaker,
    },
    /// Nothing: Rekindle has suspended nothing.
    NothingToDo,
    /// Somebody else suspended the launches, and the operator has to ask Auto Scaling itself. Where there is a
    /// record to write, the breaker is closed all the same.
    SuspendedBySomebodyElse(Option<Breaker>),
}

/// Decides what the operator's request to resume comes to.
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
