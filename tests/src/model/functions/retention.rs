//! Retention, as the backup function's module `retention` works: manifests first, then the objects that they named.

use crate::model::decide;
use crate::model::protocol::Protocol;
use crate::model::protocol::defects::Defect;
use crate::model::protocol::situations::Situation;
use crate::model::world::{BackupNumber, Call, Promise, World};

/// How many of the newest good backups are kept regardless of age.
const MIN_GOOD: usize = 2;

/// Returns the backups that are expired now.
pub(in crate::model) fn expired(protocol: &Protocol, world: &World) -> Vec<BackupNumber> {
    let Some((&newest, _)) = world.manifests.last_key_value() else {
        return Vec::new();
    };
    let kept = if protocol.has(Defect::DeletesGoodBackups) {
        vec![newest]
    } else {
        newest_good(world)
    };
    decide::expired(&(world.manifests.keys().copied().collect(), kept))
}

fn newest_good(world: &World) -> Vec<BackupNumber> {
    let newest_first = world.manifests.iter().rev();
    let readable = newest_first.filter(|(_, manifest)| manifest.readable);
    readable.map(|(backup, _)| *backup).take(MIN_GOOD).collect()
}

/// Lists the backups, and decides which ones are expired.
pub(in crate::model) fn list(protocol: &Protocol, world: &mut World) -> Option<Call> {
    let backups = expired(protocol, world);
    let good = newest_good(world);
    if backups.iter().any(|backup| good.contains(backup)) {
        world.broken = Some(Promise::CommittedStays);
    }
    (!backups.is_empty()).then_some(Call::DeleteManifests { backups })
}

/// Deletes the manifests of expired backups.
pub(in crate::model) fn delete_manifests(
    protocol: &Protocol,
    world: &mut World,
    backups: Vec<BackupNumber>,
) -> Call {
    protocol.note(Situation::RetentionDeleted);
    world
        .manifests
        .retain(|backup, _| !backups.contains(backup));
    Call::DeleteObjects { backups }
}

/// Deletes the objects of expired backups, unless they have a manifest again.
pub(in crate::model) fn delete_objects(world: &mut World, backups: &[BackupNumber]) {
    let deleted = |backup: BackupNumber| backups.contains(&backup) && !world.has_manifest(backup);
    let deleted: Vec<bool> = world.runs.iter().map(|run| deleted(run.backup)).collect();
    for (run, deleted) in world.runs.iter_mut().zip(deleted) {
        run.sound &= !deleted;
    }
}
