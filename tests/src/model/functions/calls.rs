//! Makes the calls of invocations, and lets invocations crash before a call.

use super::{backup, breaker, commit, restore, retention};
use crate::model::protocol::Protocol;
use crate::model::protocol::situations::Situation;
use crate::model::world::{Call, FinalResult, World};

/// Makes a call. Returns the next call of its invocation.
pub(in crate::model) fn make(protocol: &Protocol, world: &mut World, call: Call) -> Option<Call> {
    match call {
        Call::ChooseBackup { .. }
        | Call::SendRestore { .. }
        | Call::LogGaps { .. }
        | Call::CheckAdmission { .. }
        | Call::Admit { .. }
        | Call::Abandon { .. }
        | Call::LogAbandoned { .. }
        | Call::TripBreaker { .. }
        | Call::SuspendLaunches { .. }
        | Call::ResumeLaunches { .. }
        | Call::RecordBreaker { .. } => make_of_restore(protocol, world, call),
        Call::SendBackup {
            node,
            backup,
            purpose,
        } => backup::send_backup(world, node, backup, purpose),
        Call::CheckObjects { command, run } => commit::check_objects(protocol, world, command, run),
        Call::PutManifest {
            command,
            run,
            quarantined,
        } => commit::put_manifest(protocol, world, command, run, quarantined),
        Call::PutAcceptedManifest { backup } => commit::put_accepted(protocol, world, backup),
        Call::DeleteQuarantined { backup } => {
            world.quarantined.remove(&backup);
            None
        }
        Call::WriteParameter { command } => commit::write_parameter(protocol, world, command),
        Call::ListExpired => retention::list(protocol, world),
        Call::DeleteManifests { backups } => {
            Some(retention::delete_manifests(protocol, world, backups))
        }
        Call::DeleteObjects { backups } => {
            retention::delete_objects(world, &backups);
            None
        }
        Call::AnswerTerminateHook { node, result } => {
            backup::answer_terminate_hook(protocol, world, node, result)
        }
        Call::LogLoss { node } => {
            world.node_mut(node).reported = true;
            None
        }
        Call::SendFinalBackup { node } => backup::send_final(world, node),
        Call::CancelFinalBackup { command } => backup::cancel_final(protocol, world, command),
    }
}

/// Makes a call of the restore function.
fn make_of_restore(protocol: &Protocol, world: &mut World, call: Call) -> Option<Call> {
    match call {
        Call::ChooseBackup {
            node,
            fence_broken_by,
        } => Some(restore::choose_backup(
            protocol,
            world,
            node,
            fence_broken_by,
        )),
        Call::SendRestore {
            node,
            candidates,
            has_gaps,
        } => restore::send_restore(protocol, world, node, candidates, has_gaps),
        Call::LogGaps { node } => {
            restore::report_gaps(world, node);
            None
        }
        Call::CheckAdmission {
            node,
            restored,
            reports_skipped,
        } => Some(restore::check_admission(
            protocol,
            world,
            node,
            restored,
            reports_skipped,
        )),
        Call::Admit {
            node,
            reports_skipped,
        } => restore::admit(protocol, world, node, reports_skipped),
        Call::Abandon { node } => restore::abandon(protocol, world, node),
        Call::LogAbandoned { node } => {
            world.node_mut(node).reported = true;
            None
        }
        Call::TripBreaker { node, trips } => Some(breaker::trip(protocol, world, node, trips)),
        Call::SuspendLaunches { node } => Some(breaker::suspend(world, node)),
        Call::ResumeLaunches { resumption } => Some(breaker::resume(world, resumption)),
        Call::RecordBreaker { resumption } => breaker::record(protocol, world, resumption),
        _ => None,
    }
}

/// Ends an invocation before its next call.
pub(in crate::model) fn crash(protocol: &Protocol, world: &mut World, index: usize) -> bool {
    world.budget.crashes -= 1;
    match world.calls.remove(index) {
        Call::WriteParameter { command: Some(_) } => {
            protocol.note(Situation::CrashBeforeParameter);
        }
        Call::AnswerTerminateHook {
            result: FinalResult::Committed,
            ..
        } => protocol.note(Situation::CrashBeforeHook),
        // Lambda counts the invocation as an error, and the alarm on errors reports it.
        Call::LogLoss { node } | Call::LogAbandoned { node } => {
            world.node_mut(node).reported = true;
            protocol.note(Situation::CrashBeforeLog);
        }
        Call::LogGaps { node } => restore::report_gaps(world, node),
        _ => {}
    }
    true
}
