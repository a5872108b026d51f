//! The decision of retention.

use std::collections::BTreeSet;

use backup::retention::decide as shipped;
use shared::function::env::Retention;

use super::memo::Memo;
use crate::model::world::BackupNumber;
use crate::model::world::names;

type Facts = (Vec<BackupNumber>, Vec<BackupNumber>);

thread_local! {
    static EXPIRED: Memo<Facts, Vec<BackupNumber>> = Memo::new();
}

/// Decides which of these backups, oldest first, are expired. The backups of the second list are kept regardless of age.
pub(in crate::model) fn expired(facts: &Facts) -> Vec<BackupNumber> {
    EXPIRED.with(|memo| {
        memo.get(facts, |(backups, kept)| {
            let ids = |numbers: &[BackupNumber]| -> BTreeSet<_> {
                numbers.iter().copied().map(names::backup_id).collect()
            };
            let newest = backups.last().copied().unwrap_or(0).max(names::OLD);
            let (policy, now) = (Retention::default(), names::requested_at(newest));
            let expired = shipped::expired(&policy, &ids(backups), &ids(kept), now);
            expired.iter().map(names::backup).collect()
        })
    })
}
