//! The running invocations: each is its next call.

use crate::model::world::{Call, Lifecycle, Purpose, World};

/// Adds an invocation's next call, unless an equal call is pending or the call has no effect. Repeated and late work
/// comes from events instead.
pub(in crate::model) fn enqueue(world: &mut World, call: Option<Call>) {
    if let Some(call) = call
        && !world.calls.contains(&call)
        && !has_no_effect(world, &call)
    {
        world.calls.push(call);
        world.calls.sort_unstable();
    }
}

/// Returns whether a call changes nothing, now or later.
fn has_no_effect(world: &World, call: &Call) -> bool {
    match *call {
        Call::CheckObjects { command, run } | Call::PutManifest { command, run, .. } => {
            let number = world.command(command).node;
            let node = world.node(number);
            let is_final = world.run(run).purpose == Purpose::Final;
            let answered = !is_final || node.lifecycle > Lifecycle::Terminating;
            let refused = answered && (!is_final || node.reported);
            let backup = world.run(run).backup;
            let quarantined = world.quarantined.get(&backup);
            let committed = world.manifests.get(&backup).map(|manifest| manifest.run);
            match committed.or(quarantined.copied()) {
                Some(before) if before == run => {
                    answered && (world.parameter || committed.is_none())
                }
                Some(_) => refused,
                None => {
                    refused && !world.run(run).sound && matches!(call, Call::CheckObjects { .. })
                }
            }
        }
        Call::PutAcceptedManifest { backup } | Call::DeleteQuarantined { backup } => {
            !world.quarantined.contains_key(&backup)
        }
        Call::WriteParameter { command } => command.is_none() && world.parameter,
        Call::AnswerTerminateHook { node, .. } => {
            world.node(node).lifecycle != Lifecycle::Terminating
        }
        Call::LogLoss { node } | Call::LogAbandoned { node } => world.node(node).reported,
        Call::CheckAdmission { node, .. }
        | Call::Admit { node, .. }
        | Call::Abandon { node }
        | Call::ChooseBackup { node, .. } => world.node(node).lifecycle != Lifecycle::Launching,
        Call::SendBackup { .. }
        | Call::ListExpired
        | Call::DeleteManifests { .. }
        | Call::DeleteObjects { .. }
        | Call::SendFinalBackup { .. }
        | Call::CancelFinalBackup { .. }
        | Call::SendRestore { .. }
        | Call::TripBreaker { .. }
        | Call::SuspendLaunches { .. }
        | Call::ResumeLaunches { .. }
        | Call::RecordBreaker { .. }
        | Call::LogGaps { .. } => false,
    }
}
