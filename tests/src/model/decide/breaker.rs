//! The decisions of the circuit breaker.

use restore::breaker::decide as shipped;
use shared::aws::autoscaling::launches;
use shared::aws::breaker as record;
use shared::budget;
use time::{Duration, OffsetDateTime};

use super::memo::Memo;
use crate::model::world::names;
use crate::model::world::{Breaker, NodeNumber, TripAge};

thread_local! {
    static FAILURES: Memo<FailureFacts, OnFailure> = Memo::new();
    static SWEEPS: Memo<SweepFacts, OnSweep> = Memo::new();
}

/// How a launch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::model) enum LaunchEnd {
    NotYet,
    Successful,
    Failed,
}

/// The facts about a launch that is about to be abandoned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct FailureFacts {
    pub(in crate::model) node: NodeNumber,
    pub(in crate::model) permanent: bool,
    /// The launches, newest first.
    pub(in crate::model) launches: Vec<(NodeNumber, LaunchEnd)>,
    pub(in crate::model) suspended: bool,
    pub(in crate::model) breaker: Option<Breaker>,
}

/// The decision about the breaker before a launch is abandoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum OnFailure {
    Relaunch,
    Trip { trips: u8 },
}

/// Decides about the breaker before a launch is abandoned.
pub(in crate::model) fn on_failure(facts: &FailureFacts) -> OnFailure {
    FAILURES.with(|memo| {
        memo.get(facts, |facts| {
            let launches = facts.launches.iter().map(|(node, end)| launches::Launch {
                instance_id: Some(names::instance(*node)),
                started_at: launched_at(*node),
                end: match end {
                    LaunchEnd::NotYet => launches::LaunchEnd::NotYet,
                    LaunchEnd::Successful => launches::LaunchEnd::Successful,
                    LaunchEnd::Failed => launches::LaunchEnd::Failed,
                },
            });
            let newest = facts.launches.first().map_or(0, |(node, _)| *node);
            let facts = shipped::FailedLaunch {
                now: after_launches(newest + 1),
                instance_id: names::instance(facts.node),
                permanent: facts.permanent,
                launches: launches.collect(),
                suspended: facts.suspended,
                breaker: facts.breaker.map(shipped_record),
            };
            match shipped::on_failure(&facts) {
                shipped::OnFailure::Trip { breaker, .. } => OnFailure::Trip {
                    trips: trips_of(&breaker),
                },
                shipped::OnFailure::Relaunch { .. }
                | shipped::OnFailure::AlreadyTripped
                | shipped::OnFailure::SuspendedBySomebodyElse => OnFailure::Relaunch,
            }
        })
    })
}

/// Returns how many times in a row the breaker has tripped, by the record that a trip writes.
fn trips_of(record: &record::Breaker) -> u8 {
    match record {
        record::Breaker::Open { trips, .. } => u8::try_from(*trips).unwrap_or(u8::MAX),
        record::Breaker::HalfOpen { .. } | record::Breaker::Closed { .. } => {
            unreachable!("a trip opens the breaker")
        }
    }
}

/// The decision about the breaker before an instance is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum OnSuccess {
    Nothing,
    Close { resume: bool },
}

/// Decides about the breaker before an instance is admitted.
pub(in crate::model) fn on_success(breaker: Option<Breaker>) -> OnSuccess {
    let record = breaker.map(shipped_record);
    match shipped::on_success(record.as_ref(), launched_at(0)) {
        shipped::OnSuccess::Nothing => OnSuccess::Nothing,
        shipped::OnSuccess::Close { resume, .. } => OnSuccess::Close { resume },
    }
}

/// The facts about the breaker at a sweep.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct SweepFacts {
    pub(in crate::model) waiting: Vec<NodeNumber>,
    pub(in crate::model) suspended: bool,
    pub(in crate::model) breaker: Option<Breaker>,
    pub(in crate::model) tripped: TripAge,
}

/// A sweep's decision about the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum OnSweep {
    Nothing,
    HalfOpen,
    RecordResumed,
}

/// Decides about the breaker at a sweep.
pub(in crate::model) fn on_sweep(facts: &SweepFacts) -> OnSweep {
    SWEEPS.with(|memo| {
        memo.get(facts, |facts| {
            let (tripped_at, trips) = match facts.breaker {
                Some(Breaker::Open { trips, node }) => (after_launches(node + 1), trips),
                _ => (launched_at(0), 1),
            };
            let age = match facts.tripped {
                TripAge::Fresh => budget::seconds(1),
                TripAge::Effective => budget::seconds(budget::SUSPENSION_DELAY),
                TripAge::TrialDue => shipped::wait(trips.into()),
            };
            let waiting = facts.waiting.iter().copied();
            let facts = shipped::WatchedGroup {
                now: tripped_at + age,
                waiting: waiting.map(names::instance).collect(),
                suspended: facts.suspended,
                breaker: facts.breaker.map(shipped_record),
            };
            match shipped::on_sweep(&facts) {
                shipped::OnSweep::Nothing => OnSweep::Nothing,
                shipped::OnSweep::HalfOpen(_) => OnSweep::HalfOpen,
                shipped::OnSweep::RecordResumed(_) => OnSweep::RecordResumed,
            }
        })
    })
}

fn shipped_record(breaker: Breaker) -> record::Breaker {
    match breaker {
        Breaker::Open { trips, node } => record::Breaker::Open {
            trips: trips.into(),
            tripped_at: after_launches(node + 1),
            instance_id: names::instance(node),
        },
        Breaker::HalfOpen { trips, launched } => record::Breaker::HalfOpen {
            trips: trips.into(),
            tripped_at: after_launches(launched),
        },
        Breaker::Closed { launched } => record::Breaker::Closed {
            closed_at: after_launches(launched),
        },
    }
}

/// Returns the time of a launch. Launches are a day apart, so that events between two launches have their own time.
fn launched_at(node: NodeNumber) -> OffsetDateTime {
    names::requested_at(0) + Duration::days(node.into())
}

/// Returns a time between the launches before and after this number of launches.
fn after_launches(launched: NodeNumber) -> OffsetDateTime {
    launched_at(launched) - Duration::hours(12)
}
