//! The circuit breaker, as the restore function's module `breaker` operates it: first the record, then the suspension, then the
//! hook's answer.

use crate::model::aws::group::MAX_LAUNCHES;
use crate::model::aws::ssm;
use crate::model::decide::{self, LaunchEnd, OnFailure, OnSuccess, OnSweep};
use crate::model::protocol::Protocol;
use crate::model::protocol::defects::Defect;
use crate::model::protocol::situations::Situation;
use crate::model::world::{Breaker, Call, Lifecycle, Node, NodeNumber, Resumption, TripAge, World};

/// Returns the first call that abandons a launch.
pub(in crate::model) fn before_abandoning(
    protocol: &Protocol,
    world: &World,
    node: NodeNumber,
    permanent: bool,
) -> Call {
    let newest_first = world.numbered_nodes().rev();
    let facts = decide::FailureFacts {
        node,
        permanent,
        launches: newest_first.map(|(number, it)| (number, end(it))).collect(),
        suspended: world.suspended,
        breaker: world.breaker,
    };
    match decide::on_failure(&facts) {
        _ if protocol.has(Defect::NeverTrips) => Call::Abandon { node },
        OnFailure::Trip { trips } => Call::TripBreaker { node, trips },
        OnFailure::Relaunch => Call::Abandon { node },
    }
}

fn end(node: &Node) -> LaunchEnd {
    match node.lifecycle {
        _ if node.admitted => LaunchEnd::Successful,
        Lifecycle::Launching => LaunchEnd::NotYet,
        _ => LaunchEnd::Failed,
    }
}

/// Returns the first call that admits an instance.
pub(in crate::model) fn before_admitting(
    world: &World,
    node: NodeNumber,
    reports_skipped: bool,
) -> Call {
    let resumption = Resumption::Success {
        node,
        reports_skipped,
    };
    match decide::on_success(world.breaker) {
        OnSuccess::Nothing => Call::Admit {
            node,
            reports_skipped,
        },
        OnSuccess::Close { resume: true } => Call::ResumeLaunches { resumption },
        OnSuccess::Close { resume: false } => Call::RecordBreaker { resumption },
    }
}

/// Handles a sweep: returns the call that resumes the launches for a trial, if one is due.
pub(in crate::model) fn sweep(world: &World) -> Option<Call> {
    let in_service = |node: &Node| node.lifecycle == Lifecycle::InService;
    if !world.suspended && world.nodes.iter().any(in_service) {
        return None;
    }
    let waiting = world
        .numbered_nodes()
        .filter(|(_, node)| node.lifecycle == Lifecycle::Launching);
    let facts = decide::SweepFacts {
        waiting: waiting.map(|(number, _)| number).collect(),
        suspended: world.suspended,
        breaker: world.breaker,
        tripped: world.tripped,
    };
    let resumption = Resumption::Trial;
    match decide::on_sweep(&facts) {
        OnSweep::Nothing => None,
        OnSweep::HalfOpen => Some(Call::ResumeLaunches { resumption }),
        OnSweep::RecordResumed => Some(Call::RecordBreaker { resumption }),
    }
}

/// Records that the breaker trips.
pub(in crate::model) fn trip(
    protocol: &Protocol,
    world: &mut World,
    node: NodeNumber,
    trips: u8,
) -> Call {
    world.breaker = Some(Breaker::Open { trips, node });
    world.tripped = TripAge::Fresh;
    protocol.note(Situation::BreakerTripped);
    if trips > 1 {
        protocol.note(Situation::BreakerTrippedAgain);
    }
    Call::SuspendLaunches { node }
}

/// Suspends the group's launches.
pub(in crate::model) fn suspend(world: &mut World, node: NodeNumber) -> Call {
    world.suspended = true;
    Call::Abandon { node }
}

/// Resumes the group's launches.
pub(in crate::model) fn resume(world: &mut World, resumption: Resumption) -> Call {
    world.suspended = false;
    if resumption == Resumption::Trial {
        // The trial, and one more that was launched before the suspension and fails after it.
        world.launches_in_row = world.launches_in_row.min(MAX_LAUNCHES - 2);
    }
    Call::RecordBreaker { resumption }
}

/// Records that the breaker is half-open or closed.
pub(in crate::model) fn record(
    protocol: &Protocol,
    world: &mut World,
    resumption: Resumption,
) -> Option<Call> {
    let launched = world.launched();
    match resumption {
        Resumption::Trial => {
            if let Some(Breaker::Open { trips, node }) = world.breaker {
                protocol.note(Situation::BreakerHalfOpened);
                world.breaker = Some(Breaker::HalfOpen {
                    trips,
                    launched: node + 1,
                });
            }
            None
        }
        Resumption::Success {
            node,
            reports_skipped,
        } => {
            protocol.note(Situation::BreakerClosed);
            world.breaker = Some(Breaker::Closed { launched });
            Some(Call::Admit {
                node,
                reports_skipped,
            })
        }
    }
}

/// Lets the time since the breaker tripped reach the next stage, if it can.
pub(in crate::model) fn age(world: &mut World) -> bool {
    let Some(Breaker::Open { node, .. }) = world.breaker else {
        return false;
    };
    let next = match world.tripped {
        TripAge::Fresh => TripAge::Effective,
        TripAge::Effective => TripAge::TrialDue,
        TripAge::TrialDue => return false,
    };
    // A running invocation has suspended the launches by then. A sweep repeats an invocation that crashed, unless no
    // sweep runs for that long: a delay.
    let unsuspended = world.node(node).lifecycle == Lifecycle::Launching;
    if !world.calls.is_empty() || !ssm::spend_delay(world, unsuspended) {
        return false;
    }
    world.tripped = next;
    true
}
