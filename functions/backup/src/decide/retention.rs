//! Which backups are kept, and for how long: decided from their ids alone.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use shared::env::Retention;
use shared::id::{BackupId, RunId};
use time::{Duration, OffsetDateTime};

/// Nothing younger is ever touched, whatever the policy says: an upload may still be under way, and a node may still be
/// restoring from what it names.
pub const UNTOUCHED: Duration = Duration::hours(48);

/// Returns which of an application's backups are to be deleted, oldest first.
///
/// `kept` are those that stay whatever their age: the pinned ones, and the newest good ones. The first backup of an hour
/// or a day stands for it because a later one never takes its place: what was kept yesterday is not given up for
/// another today.
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

/// Returns which attempts at backups left objects that no manifest names and none will. Each attempt comes with the time
/// of its newest object: what was copied here just now may be named by a manifest that is copied next.
///
/// `owners` are the backups that have a manifest, committed or under quarantine, with the attempt that it names; where
/// that is not known, all of them may be.
pub fn orphans(
    attempts: &BTreeMap<(BackupId, RunId), OffsetDateTime>,
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
    let orphans = attempts
        .iter()
        .filter(|(attempt, newest)| is_orphan(attempt, **newest));
    orphans.map(|(attempt, _)| attempt.clone()).collect()
}
