//! Retention, as the backup function's `retire` works: manifests first, then the objects that they named.

use super::Protocol;
use super::calls::Call;
use super::decide;
use super::plants::Plant;
use super::promises::Promise;
use super::situations::Situation;
use super::world::{BackupNumber, World};

/// So many of the newest good backups are kept.
pub(super) const AT_LEAST: usize = 2;

/// Returns what a pass would take away now.
pub(super) fn expired(protocol: &Protocol, world: &World) -> Vec<BackupNumber> {
    let Some((&newest, _)) = world.manifests.last_key_value() else {
        return Vec::new();
    };
    let kept = if protocol.has(Plant::RetiresTheGood) {
        vec![newest]
    } else {
        newest_good(world)
    };
    decide::expired(&(world.manifests.keys().copied().collect(), kept))
}

fn newest_good(world: &World) -> Vec<BackupNumber> {
    let newest_first = world.manifests.iter().rev();
    let readable = newest_first.filter(|(_, manifest)| manifest.readable);
    readable.map(|(backup, _)| *backup).take(AT_LEAST).collect()
}

/// Lists the backups, and decides which are taken away.
pub(super) fn list(protocol: &Protocol, world: &mut World) -> Option<Call> {
    let backups = expired(protocol, world);
    let good = newest_good(world);
    if backups.iter().any(|backup| good.contains(backup)) {
        world.broken = Some(Promise::CommittedStays);
    }
    (!backups.is_empty()).then_some(Call::DeleteManifests { backups })
}

/// Takes their manifests away.
pub(super) fn delete_manifests(
    protocol: &Protocol,
    world: &mut World,
    backups: Vec<BackupNumber>,
) -> Call {
    protocol.reach(Situation::Retired);
    world
        .manifests
        .retain(|backup, _| !backups.contains(backup));
    Call::DeleteObjects { backups }
}

/// Takes their objects away, unless they have got a manifest again.
pub(super) fn delete_objects(world: &mut World, backups: &[BackupNumber]) {
    let unnamed = |backup: BackupNumber| {
        backups.contains(&backup)
            && !world.manifests.contains_key(&backup)
            && !world.aside.contains_key(&backup)
    };
    let gone: Vec<bool> = world.runs.iter().map(|run| unnamed(run.backup)).collect();
    for (run, gone) in world.runs.iter_mut().zip(gone) {
        run.sound &= !gone;
    }
}
