//! The rules by which backups expire. They depend on the backups' ids only.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use shared::function::env::Retention;
use shared::id::{BackupId, RunId};
use time::{Duration, OffsetDateTime};

/// The age below which nothing is ever deleted, whatever the policy is: an upload may still be running, and a node may
/// still restore from these objects.
pub const UNTOUCHED: Duration = Duration::hours(48);

/// Returns the backups of an application that have expired, oldest first.
///
/// The backups in `kept` stay at any age: the pinned ones, and the newest readable ones. The first backup of an hour or
/// a day stays, and not the last one, because a later backup would replace the last one.
pub fn expired(
    policy: &Retention,
    backups: &BTreeSet<BackupId>,
    kept: &BTreeSet<BackupId>,
    now: OffsetDateTime,
) -> Vec<BackupId> {
    let (mut hours, mut days) = (BTreeSet::new(), BTreeSet::new());
    let mut expired = Vec::new();
    for backup in backups {
        let (time, age) = (backup.time(), now - backup.time());
        let first_of_hour = hours.insert((time.date(), time.hour()));
        let first_of_day = days.insert(time.date());
        let stays = age < policy.all.max(UNTOUCHED)
            || (age < policy.hourly && first_of_hour)
            || (age < policy.daily && first_of_day)
            || kept.contains(backup);
        if !stays {
            expired.push(backup.clone());
        }
    }
    expired
}

/// Returns the runs that no manifest names or will name.
///
/// `runs` has the time of each run's newest object. The age of that object counts too, because somebody may have copied
/// the objects of an old backup here, and may copy its manifest next. `owners` has the backups with a manifest,
/// committed or quarantined, each with the run that its manifest names. If that run is `None`, every run of the backup
/// stays.
pub fn orphans(
    runs: &BTreeMap<(BackupId, RunId), OffsetDateTime>,
    owners: &BTreeMap<BackupId, Option<RunId>>,
    now: OffsetDateTime,
) -> Vec<(BackupId, RunId)> {
    let is_orphan = |(backup, run): &(BackupId, RunId), newest: OffsetDateTime| {
        let owned = match owners.get(backup) {
            None => false,
            Some(None) => true,
            Some(Some(owner)) => owner == run,
        };
        now - backup.time().max(newest) >= UNTOUCHED && !owned
    };
    let orphans = runs.iter().filter(|(run, newest)| is_orphan(run, **newest));
    orphans.map(|(run, _)| run.clone()).collect()
}
