//! The breaker's questions.

use restore::decide::breaker as shipped;
use shared::aws::autoscaling::launches;
use shared::aws::breaker as record;
use shared::budget;
use time::{Duration, OffsetDateTime};

use super::Answers;
use crate::model::names;
use crate::model::world::{Breaker, NodeNumber, Tripped};

thread_local! {
    static FAILURES: Answers<FailedLaunch, OnFailure> = Answers::new();
    static SWEEPS: Answers<Watched, OnSweep> = Answers::new();
}

/// What became of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::model) enum LaunchEnd {
    NotYet,
    Successful,
    Failed,
}

/// What the decision about a launch that is to be abandoned rests on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct FailedLaunch {
    pub(in crate::model) node: NodeNumber,
    pub(in crate::model) permanent: bool,
    /// The newest first.
    pub(in crate::model) launches: Vec<(NodeNumber, LaunchEnd)>,
    pub(in crate::model) suspended: bool,
    pub(in crate::model) breaker: Option<Breaker>,
}

/// What is done about the breaker before a launch is abandoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum OnFailure {
    Nothing,
    Trip { trips: u8 },
}

/// Asks what is done about the breaker before a launch is abandoned.
pub(in crate::model) fn on_failure(question: &FailedLaunch) -> OnFailure {
    FAILURES.with(|answers| {
        answers.of(question, |question| {
            let launches = question
                .launches
                .iter()
                .map(|(node, end)| launches::Launch {
                    instance_id: Some(names::instance(*node)),
                    started_at: launched_at(*node),
                    end: match end {
                        LaunchEnd::NotYet => launches::LaunchEnd::NotYet,
                        LaunchEnd::Successful => launches::LaunchEnd::Successful,
                        LaunchEnd::Failed => launches::LaunchEnd::Failed,
                    },
                });
            let newest = question.launches.first().map_or(0, |(node, _)| *node);
            let facts = shipped::FailedLaunch {
                now: after_launches(newest + 1),
                instance_id: names::instance(question.node),
                permanent: question.permanent,
                launches: launches.collect(),
                suspended: question.suspended,
                breaker: question.breaker.map(written_out),
            };
            match shipped::on_failure(&facts) {
                shipped::OnFailure::Trip {
                    breaker: record::Breaker::Open { trips, .. },
                    ..
                } => OnFailure::Trip {
                    trips: u8::try_from(trips).unwrap_or(u8::MAX),
                },
                _ => OnFailure::Nothing,
            }
        })
    })
}

/// What is done about the breaker before an instance is let into service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum OnSuccess {
    Nothing,
    Close { resume: bool },
}

/// Asks what is done about the breaker before an instance is let into service.
pub(in crate::model) fn on_success(breaker: Option<Breaker>) -> OnSuccess {
    let record = breaker.map(written_out);
    match shipped::on_success(record.as_ref(), launched_at(0)) {
        shipped::OnSuccess::Nothing => OnSuccess::Nothing,
        shipped::OnSuccess::Close { resume, .. } => OnSuccess::Close { resume },
    }
}

/// What a sweep's decision about the breaker rests on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct Watched {
    pub(in crate::model) waiting: Vec<NodeNumber>,
    pub(in crate::model) suspended: bool,
    pub(in crate::model) breaker: Option<Breaker>,
    pub(in crate::model) tripped: Tripped,
}

/// What a sweep does about the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum OnSweep {
    Nothing,
    HalfOpen,
    NoteResumed,
}

/// Asks what a sweep does about the breaker.
pub(in crate::model) fn on_sweep(question: &Watched) -> OnSweep {
    SWEEPS.with(|answers| {
        answers.of(question, |question| {
            let (tripped_at, trips) = match question.breaker {
                Some(Breaker::Open { trips, node }) => (after_launches(node + 1), trips),
                _ => (launched_at(0), 1),
            };
            let age = match question.tripped {
                Tripped::JustNow => budget::seconds(1),
                Tripped::Settled => budget::seconds(budget::BREAKER_SETTLE),
                Tripped::Due => shipped::wait(trips.into()),
            };
            let facts = shipped::Watched {
                now: tripped_at + age,
                waiting: question
                    .waiting
                    .iter()
                    .copied()
                    .map(names::instance)
                    .collect(),
                suspended: question.suspended,
                breaker: question.breaker.map(written_out),
            };
            match shipped::on_sweep(&facts) {
                shipped::OnSweep::Nothing => OnSweep::Nothing,
                shipped::OnSweep::HalfOpen(_) => OnSweep::HalfOpen,
                shipped::OnSweep::NoteResumed(_) => OnSweep::NoteResumed,
            }
        })
    })
}

fn written_out(breaker: Breaker) -> record::Breaker {
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

/// Launches are far apart, so that what happens between two of them has a time of its own.
fn launched_at(node: NodeNumber) -> OffsetDateTime {
    names::asked_at(0) + Duration::days(node.into())
}

fn after_launches(launched: NodeNumber) -> OffsetDateTime {
    launched_at(launched) - Duration::hours(12)
}
