//! The breaker of the group's launches, as the restore function's `circuit` works it: the record first, then the
//! suspension, then the answer to the hook.

use super::calls::{Call, Resumption};
use super::decide::{self, LaunchEnd, OnFailure, OnSuccess, OnSweep};
use super::plants::Plant;
use super::situations::Situation;
use super::world::{Breaker, Node, NodeNumber, Standing, Tripped, World};
use super::{Protocol, ssm};

/// So many launches may follow each other without a success, or a pause of the breaker.
pub(super) const MOST_LAUNCHES: u8 = 3;

/// Returns the call that begins to abandon a launch.
pub(super) fn before_abandoning(
    protocol: &Protocol,
    world: &World,
    node: NodeNumber,
    permanent: bool,
) -> Call {
    let newest_first = world.numbered_nodes().rev();
    let question = decide::FailedLaunch {
        node,
        permanent,
        launches: newest_first.map(|(number, it)| (number, end(it))).collect(),
        suspended: world.suspended,
        breaker: world.breaker,
    };
    match decide::on_failure(&question) {
        _ if protocol.has(Plant::NeverTrips) => Call::Abandon { node },
        OnFailure::Trip { trips } => Call::TripBreaker { node, trips },
        OnFailure::Nothing => Call::Abandon { node },
    }
}

fn end(node: &Node) -> LaunchEnd {
    match node.standing {
        _ if node.admitted => LaunchEnd::Successful,
        Standing::Waiting => LaunchEnd::NotYet,
        _ => LaunchEnd::Failed,
    }
}

/// Returns the call that begins to let an instance into service.
pub(super) fn before_admitting(world: &World, node: NodeNumber, tells_skipped: bool) -> Call {
    let resumption = Resumption::Success {
        node,
        tells_skipped,
    };
    match decide::on_success(world.breaker) {
        OnSuccess::Nothing => Call::Admit {
            node,
            tells_skipped,
        },
        OnSuccess::Close { resume: true } => Call::ResumeLaunches { resumption },
        OnSuccess::Close { resume: false } => Call::RecordBreaker { resumption },
    }
}

/// Finds out, with a sweep, whether it is time to try a launch.
pub(super) fn watch(world: &World) -> Option<Call> {
    let serves = |node: &Node| node.standing == Standing::Serving;
    if !world.suspended && world.nodes.iter().any(serves) {
        return None;
    }
    let waiting = world
        .numbered_nodes()
        .filter(|(_, node)| node.standing == Standing::Waiting);
    let question = decide::Watched {
        waiting: waiting.map(|(number, _)| number).collect(),
        suspended: world.suspended,
        breaker: world.breaker,
        tripped: world.tripped,
    };
    let resumption = Resumption::Trial;
    match decide::on_sweep(&question) {
        OnSweep::Nothing => None,
        OnSweep::HalfOpen => Some(Call::ResumeLaunches { resumption }),
        OnSweep::NoteResumed => Some(Call::RecordBreaker { resumption }),
    }
}

/// Records that the breaker trips.
pub(super) fn trip(protocol: &Protocol, world: &mut World, node: NodeNumber, trips: u8) -> Call {
    world.breaker = Some(Breaker::Open { trips, node });
    world.tripped = Tripped::JustNow;
    protocol.reach(Situation::BreakerTripped);
    if trips > 1 {
        protocol.reach(Situation::BreakerTrippedAgain);
    }
    Call::SuspendLaunches { node }
}

/// Suspends the group's launches.
pub(super) fn suspend(world: &mut World, node: NodeNumber) -> Call {
    world.suspended = true;
    Call::Abandon { node }
}

/// Resumes them.
pub(super) fn resume(world: &mut World, resumption: Resumption) -> Call {
    world.suspended = false;
    if resumption == Resumption::Trial {
        // The one on trial, and one more that was launched before the suspension and fails only now.
        world.launches_in_row = world.launches_in_row.min(MOST_LAUNCHES - 2);
    }
    Call::RecordBreaker { resumption }
}

/// Records that the breaker is half open, or closed.
pub(super) fn record(
    protocol: &Protocol,
    world: &mut World,
    resumption: Resumption,
) -> Option<Call> {
    let launched = world.launched();
    match resumption {
        Resumption::Trial => {
            if let Some(Breaker::Open { trips, node }) = world.breaker {
                protocol.reach(Situation::BreakerHalfOpened);
                world.breaker = Some(Breaker::HalfOpen {
                    trips,
                    launched: node + 1,
                });
            }
            None
        }
        Resumption::Success {
            node,
            tells_skipped,
        } => {
            protocol.reach(Situation::BreakerClosed);
            world.breaker = Some(Breaker::Closed { launched });
            Some(Call::Admit {
                node,
                tells_skipped,
            })
        }
    }
}

/// Lets the time since the breaker tripped pass the next limit.
pub(super) fn age(world: &mut World) -> bool {
    let Some(Breaker::Open { node, .. }) = world.breaker else {
        return false;
    };
    let next = match world.tripped {
        Tripped::JustNow => Tripped::Settled,
        Tripped::Settled => Tripped::Due,
        Tripped::Due => return false,
    };
    // An invocation that is about to suspend the launches has done so by then; and one that was cut off before is made
    // up for by a sweep, unless there is none for so long.
    let cut_off = world.node(node).standing == Standing::Waiting;
    if !world.calls.is_empty() || !ssm::spend_delay(world, cut_off) {
        return false;
    }
    world.tripped = next;
    true
}
