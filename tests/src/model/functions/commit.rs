//! The commit: check every object, call the guard, write the manifest, then the parameter.

use super::retention;
use crate::model::decide::{self, Continued, OlderBackup, Profile};
use crate::model::protocol::Protocol;
use crate::model::protocol::defects::Defect;
use crate::model::protocol::situations::Situation;
use crate::model::world::{
    AgentOutcome, BackupNumber, Call, CommandNumber, Data, FinalResult, Lifecycle, Manifest,
    NodeNumber, Promise, Purpose, Request, Run, RunNumber, Status, World,
};

/// Checks every object that a report names, and calls the guard.
pub(in crate::model) fn check_objects(
    protocol: &Protocol,
    world: &mut World,
    command: CommandNumber,
    run: RunNumber,
) -> Option<Call> {
    let backup = world.run(run).backup;
    if world.has_manifest(backup) && !protocol.has(Defect::OverwritesManifests) {
        return committed_before(protocol, world, command, run);
    }
    if !world.run(run).complete || !world.run(run).sound {
        protocol.note(Situation::DamageBeforeCommit);
        return fail(world, command);
    }
    let terminating = world.node(world.run(run).node).lifecycle > Lifecycle::InService;
    let unguarded = protocol.has(Defect::SkipsGuard)
        || protocol.has(Defect::OverwritesManifests)
        || (protocol.has(Defect::SkipsGuardForTerminating) && terminating);
    let quarantined = !unguarded && is_suspicious(protocol, world, run);
    Some(Call::PutManifest {
        command,
        run,
        quarantined,
    })
}

/// Returns the next call for a backup that already has a manifest.
fn committed_before(
    protocol: &Protocol,
    world: &mut World,
    command: CommandNumber,
    run: RunNumber,
) -> Option<Call> {
    let backup = world.run(run).backup;
    let committed = world.manifests.get(&backup).map(|manifest| manifest.run);
    if committed.or(world.quarantined.get(&backup).copied()) != Some(run) {
        protocol.note(Situation::ConflictingCommit);
        return fail(world, command);
    }
    protocol.note(Situation::CommittedTwice);
    match committed {
        Some(_) => Some(Call::WriteParameter {
            command: Some(command),
        }),
        None => answer(world, command),
    }
}

/// Returns whether the guard quarantines a backup.
fn is_suspicious(protocol: &Protocol, world: &World, number: RunNumber) -> bool {
    let run = world.run(number);
    if run.purpose != Purpose::Adopt && has_successor(world, run.node) {
        protocol.note(Situation::QuarantinedSuperseded);
        return true;
    }
    let all_older = || world.manifests.range(..run.backup).rev();
    let readable = all_older().find(|(_, manifest)| manifest.readable);
    let older = match readable {
        Some((_, manifest)) => OlderBackup::Newest(profile(world, manifest.run)),
        None if all_older().next().is_some() => OlderBackup::Unreadable,
        None => OlderBackup::None,
    };
    let new = profile(world, number);
    let continued = match decide::continues(&new, &older) {
        Continued::Nothing => return false,
        Continued::Backup(backup) => backup,
        Continued::Suspicious => {
            protocol.note(Situation::QuarantinedLineage);
            return true;
        }
    };
    let anywhere = world
        .manifests
        .get(&continued)
        .filter(|manifest| manifest.readable);
    let reference = anywhere.map(|manifest| manifest.run);
    let lost_most = reference
        .or(world.quarantined.get(&continued).copied())
        .is_none_or(|reference| decide::lost_most(&new, &profile(world, reference)));
    if lost_most {
        protocol.note(Situation::QuarantinedLoss);
    }
    lost_most
}

/// Returns whether another member was restored after this instance.
fn has_successor(world: &World, node: NodeNumber) -> bool {
    let restored_at = |of: NodeNumber| {
        let commands = world.numbered_commands().filter(|(_, command)| {
            command.node == of
                && matches!(command.request, Request::Restore(_))
                && may_have_restored(command.status)
        });
        commands.map(|(number, _)| number).max()
    };
    let own = restored_at(node);
    let mut others = world.numbered_nodes();
    others.any(|(other, it)| other != node && it.is_member() && restored_at(other) > own)
}

/// Returns whether a restore command succeeded or is not finished.
fn may_have_restored(status: Status) -> bool {
    match status {
        Status::Ended(outcome) => !matches!(outcome, AgentOutcome::Failed(_)),
        other => !other.is_finished(),
    }
}

fn profile(world: &World, number: RunNumber) -> Profile {
    let Run {
        backup,
        node,
        purpose,
        data,
        ref skipped,
        emptied,
        ..
    } = *world.run(number);
    Profile {
        backup,
        node,
        purpose,
        data,
        skipped: skipped.clone(),
        emptied,
    }
}

/// Writes the manifest: it commits the backup, or quarantines it.
pub(in crate::model) fn put_manifest(
    protocol: &Protocol,
    world: &mut World,
    command: CommandNumber,
    number: RunNumber,
    quarantined: bool,
) -> Option<Call> {
    let run = world.run(number).clone();
    let exists = if quarantined {
        world.quarantined.contains_key(&run.backup)
    } else {
        world.manifests.contains_key(&run.backup)
    };
    if exists && !protocol.has(Defect::OverwritesManifests) {
        return committed_before(protocol, world, command, number);
    }
    if quarantined {
        world.quarantined.insert(run.backup, number);
        // Logged now, and measured by every tick while the manifest stays in the quarantine.
        world.node_mut(run.node).reported = true;
        return answer(world, command);
    }
    let before = world
        .manifests
        .get(&run.backup)
        .map(|manifest| manifest.run);
    if before.is_some_and(|before| before != number) {
        world.broken = Some(Promise::CommittedStays);
    } else if let Some(promise) = broken_by_commit(world, &run) {
        world.broken = Some(promise);
    }
    note_termination(protocol, world, &run);
    let manifest = Manifest {
        run: number,
        readable: true,
    };
    world.manifests.insert(run.backup, manifest);
    Some(Call::WriteParameter {
        command: Some(command),
    })
}

/// Commits a quarantined backup that an operator accepts, after checking every object again.
pub(in crate::model) fn put_accepted(
    protocol: &Protocol,
    world: &mut World,
    backup: BackupNumber,
) -> Option<Call> {
    let run = *world.quarantined.get(&backup)?;
    if !world.run(run).sound {
        return None;
    }
    protocol.note(Situation::Accepted);
    let manifest = Manifest {
        run,
        readable: true,
    };
    world.manifests.entry(backup).or_insert(manifest);
    Some(Call::DeleteQuarantined { backup })
}

/// Returns the promise that a commit breaks, or `None` if all promises hold.
fn broken_by_commit(world: &World, run: &Run) -> Option<Promise> {
    if !run.complete || !run.sound {
        return Some(Promise::CompleteBeforeVisible);
    }
    if !is_application_data(world, run) {
        return Some(Promise::RestoredBeforeBackedUp);
    }
    if run.purpose == Purpose::Adopt {
        return None;
    }
    if supersedes_a_later_node(world, run) {
        return Some(Promise::OneCurrentNode);
    }
    (!continues_the_newest(world, run)).then_some(Promise::SuspiciousQuarantined)
}

/// Returns whether a run continues the newest older backup, or an older one if the newer ones cannot be restored, and
/// still holds most of its rows.
fn continues_the_newest(world: &World, run: &Run) -> bool {
    for (backup, manifest) in world.manifests.range(..run.backup).rev() {
        let before = world.run(manifest.run);
        let skipped = run.skipped.contains(backup);
        if before.node == run.node || run.data == Data::FromBackup(*backup) || skipped {
            return skipped || !run.emptied || before.emptied;
        }
        if manifest.readable {
            return false;
        }
    }
    true
}

/// Returns whether a run would be the newest backup although a later node has been backed up.
fn supersedes_a_later_node(world: &World, run: &Run) -> bool {
    let newest = world.manifests.last_key_value();
    let mut manifests = world.manifests.values();
    newest.is_some_and(|(newest, _)| *newest < run.backup)
        && manifests.any(|manifest| world.run(manifest.run).node > run.node)
}

/// Returns whether a run's data is the application's: restored, started empty on purpose, or adopted.
fn is_application_data(world: &World, run: &Run) -> bool {
    let adopts = |other: &Run| other.node == run.node && other.purpose == Purpose::Adopt;
    match run.data {
        Data::Unrestored | Data::Unverified => false,
        Data::HandMade => world.runs.iter().any(adopts),
        Data::FirstBoot | Data::FromBackup(_) => true,
    }
}

fn note_termination(protocol: &Protocol, world: &World, run: &Run) {
    if world.node(run.node).lifecycle == Lifecycle::Gone {
        protocol.note(Situation::CommittedAfterTermination);
    }
}

/// Writes the application's parameter. After a final backup, the hook is answered next.
pub(in crate::model) fn write_parameter(
    protocol: &Protocol,
    world: &mut World,
    command: Option<CommandNumber>,
) -> Option<Call> {
    world.parameter = true;
    match command {
        Some(command) if world.is_final(command) => answer(world, command),
        Some(_) => start_retention(protocol, world),
        None => {
            protocol.note(Situation::ParameterRepaired);
            None
        }
    }
}

/// Returns the call that starts retention after a commit, if a backup has expired.
pub(in crate::model) fn start_retention(protocol: &Protocol, world: &World) -> Option<Call> {
    (!retention::expired(protocol, world).is_empty()).then_some(Call::ListExpired)
}

fn answer(world: &World, command: CommandNumber) -> Option<Call> {
    world.is_final(command).then(|| Call::AnswerTerminateHook {
        node: world.command(command).node,
        result: FinalResult::Committed,
    })
}

/// Reports that a backup failed. A final backup's failure is a loss, and its hook is answered next.
pub(in crate::model) fn fail(world: &mut World, command: CommandNumber) -> Option<Call> {
    if !world.is_final(command) {
        return None;
    }
    let node = world.command(command).node;
    world.node_mut(node).reported = true;
    Some(Call::AnswerTerminateHook {
        node,
        result: FinalResult::Failed,
    })
}
