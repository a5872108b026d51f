//! The commit: every object is looked at, the guard is asked, the manifest is put, then the parameter.

use super::backup_function::{fail, is_final};
use super::calls::{Call, Last};
use super::decide::{self, Continued, Predecessor, Profile};
use super::plants::Plant;
use super::promises::Promise;
use super::situations::Situation;
use super::world::{
    Ask, BackupNumber, CommandNumber, Data, Manifest, NodeNumber, Outcome, Purpose, Run, RunNumber,
    Standing, Status, World,
};
use super::{Protocol, retention};

/// Tells whether a backup has a manifest on either state.
pub(super) fn is_settled(world: &World, backup: BackupNumber) -> bool {
    world.manifests.contains_key(&backup) || world.aside.contains_key(&backup)
}

/// Looks at every object that a report names, and asks the guard.
pub(super) fn check_objects(
    protocol: &Protocol,
    world: &mut World,
    command: CommandNumber,
    run: RunNumber,
) -> Option<Call> {
    let backup = world.run(run).backup;
    if is_settled(world, backup) && !protocol.has(Plant::OverwritesManifests) {
        return settled(protocol, world, command, run);
    }
    if !world.run(run).complete || !world.run(run).sound {
        protocol.reach(Situation::DamageBeforeCommit);
        return fail(world, command);
    }
    let left = world.node(world.run(run).node).standing > Standing::Serving;
    let planted = protocol.has(Plant::SkipsGuard)
        || protocol.has(Plant::OverwritesManifests)
        || (protocol.has(Plant::ForgetsTheLeft) && left);
    let aside = !planted && is_doubtful(protocol, world, run);
    Some(Call::PutManifest {
        command,
        run,
        aside,
    })
}

/// Goes on where a backup has its manifest already.
fn settled(
    protocol: &Protocol,
    world: &mut World,
    command: CommandNumber,
    run: RunNumber,
) -> Option<Call> {
    let backup = world.run(run).backup;
    let committed = world.manifests.get(&backup).map(|manifest| manifest.run);
    if committed.or(world.aside.get(&backup).copied()) != Some(run) {
        protocol.reach(Situation::RivalCommit);
        return fail(world, command);
    }
    protocol.reach(Situation::CommittedTwice);
    match committed {
        Some(_) => Some(Call::PutParameter {
            command: Some(command),
        }),
        None => answer(world, command),
    }
}

/// Asks the guard, as `admission::doubt` does.
fn is_doubtful(protocol: &Protocol, world: &World, number: RunNumber) -> bool {
    let run = world.run(number);
    if run.purpose != Purpose::Adopt && has_successor(world, run.node) {
        protocol.reach(Situation::KeptAsideSuperseded);
        return true;
    }
    let older = || world.manifests.range(..run.backup).rev();
    let readable = older().find(|(_, manifest)| manifest.readable);
    let predecessor = match readable {
        Some((_, manifest)) => Predecessor::Newest(profile(world, manifest.run)),
        None if older().next().is_some() => Predecessor::Unreadable,
        None => Predecessor::None,
    };
    let new = profile(world, number);
    let continued = match decide::continues(&new, &predecessor) {
        Continued::Nothing => return false,
        Continued::Backup(backup) => backup,
        Continued::Doubtful => {
            protocol.reach(Situation::KeptAsideLineage);
            return true;
        }
    };
    let anywhere = world
        .manifests
        .get(&continued)
        .filter(|manifest| manifest.readable);
    let reference = anywhere.map(|manifest| manifest.run);
    let doubtful = reference
        .or(world.aside.get(&continued).copied())
        .is_none_or(|reference| decide::lost_most(&new, &profile(world, reference)));
    if doubtful {
        protocol.reach(Situation::KeptAsideLoss);
    }
    doubtful
}

/// Tells whether another member was given the application's data after this instance, as `admission::successor` does.
fn has_successor(world: &World, node: NodeNumber) -> bool {
    let restored_at = |of: NodeNumber| {
        let commands = world.numbered_commands().filter(|(_, command)| {
            command.node == of && matches!(command.ask, Ask::Restore(_)) && is_alive(command.status)
        });
        commands.map(|(number, _)| number).max()
    };
    let own = restored_at(node);
    let mut others = world.numbered_nodes();
    others.any(|(other, it)| other != node && it.is_member() && restored_at(other) > own)
}

/// Tells whether a restore command has not failed.
fn is_alive(status: Status) -> bool {
    match status {
        Status::Ended(outcome) => !matches!(outcome, Outcome::Failed(_)),
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

/// Puts the manifest: from here on the backup exists, or is kept aside.
pub(super) fn put_manifest(
    protocol: &Protocol,
    world: &mut World,
    command: CommandNumber,
    number: RunNumber,
    aside: bool,
) -> Option<Call> {
    let run = world.run(number).clone();
    let there = if aside {
        world.aside.contains_key(&run.backup)
    } else {
        world.manifests.contains_key(&run.backup)
    };
    if there && !protocol.has(Plant::OverwritesManifests) {
        return settled(protocol, world, command, number);
    }
    if aside {
        world.aside.insert(run.backup, number);
        // It is said now, and measured by every tick for as long as it stays there.
        world.node_mut(run.node).told = true;
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
    note(protocol, world, &run);
    let manifest = Manifest {
        run: number,
        readable: true,
    };
    world.manifests.insert(run.backup, manifest);
    Some(Call::PutParameter {
        command: Some(command),
    })
}

/// Puts a manifest that an operator accepts among the committed ones, after another look at every object.
pub(super) fn put_accepted(
    protocol: &Protocol,
    world: &mut World,
    backup: BackupNumber,
) -> Option<Call> {
    let run = *world.aside.get(&backup)?;
    if !world.run(run).sound {
        return None;
    }
    protocol.reach(Situation::Accepted);
    let manifest = Manifest {
        run,
        readable: true,
    };
    world.manifests.entry(backup).or_insert(manifest);
    Some(Call::DropAside { backup })
}

/// Says which promise a commit breaks.
fn broken_by_commit(world: &World, run: &Run) -> Option<Promise> {
    if !run.complete || !run.sound {
        return Some(Promise::CompleteBeforeVisible);
    }
    if !is_somebodys(world, run) {
        return Some(Promise::RestoredBeforeBackedUp);
    }
    if run.purpose == Purpose::Adopt {
        return None;
    }
    if supersedes_a_later_node(world, run) {
        return Some(Promise::OneTruth);
    }
    (!continues_the_newest(world, run)).then_some(Promise::DoubtfulKeptAside)
}

/// Tells whether a run goes on from the newest of the older backups, or from an older one past those that cannot be
/// restored, and holds most of what that held.
fn continues_the_newest(world: &World, run: &Run) -> bool {
    for (backup, manifest) in world.manifests.range(..run.backup).rev() {
        let before = world.run(manifest.run);
        let skipped = run.skipped.contains(backup);
        if before.node == run.node || run.data == Data::Of(*backup) || skipped {
            return skipped || !run.emptied || before.emptied;
        }
        if manifest.readable {
            return false;
        }
    }
    true
}

/// Tells whether a run would be the newest backup although a node that was launched later has been backed up.
fn supersedes_a_later_node(world: &World, run: &Run) -> bool {
    let newest = world.manifests.last_key_value();
    let mut manifests = world.manifests.values();
    newest.is_some_and(|(newest, _)| *newest < run.backup)
        && manifests.any(|manifest| world.run(manifest.run).node > run.node)
}

/// Tells whether a run's data are an application's: restored, started empty on purpose, or adopted.
fn is_somebodys(world: &World, run: &Run) -> bool {
    let adopts = |other: &Run| other.node == run.node && other.purpose == Purpose::Adopt;
    match run.data {
        Data::Nobodys | Data::Unverified => false,
        Data::HandMade => world.runs.iter().any(adopts),
        Data::FirstBoot | Data::Of(_) => true,
    }
}

fn note(protocol: &Protocol, world: &World, run: &Run) {
    if world.node(run.node).standing == Standing::Gone {
        protocol.reach(Situation::CommittedFromOutside);
    }
}

/// Puts the application's parameter; after a final backup its hook is next.
pub(super) fn put_parameter(
    protocol: &Protocol,
    world: &mut World,
    command: Option<CommandNumber>,
) -> Option<Call> {
    world.parameter = true;
    match command {
        Some(command) if is_final(world, command) => answer(world, command),
        Some(_) => retire(protocol, world),
        None => {
            protocol.reach(Situation::ParameterRepaired);
            None
        }
    }
}

/// Returns the pass of retention that follows a commit, where it would find something.
pub(super) fn retire(protocol: &Protocol, world: &World) -> Option<Call> {
    (!retention::expired(protocol, world).is_empty()).then_some(Call::ListExpired)
}

fn answer(world: &World, command: CommandNumber) -> Option<Call> {
    is_final(world, command).then(|| Call::AnswerLeaving {
        node: world.command(command).node,
        last: Last::Committed,
    })
}
