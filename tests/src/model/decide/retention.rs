//! Retention's question.

use std::collections::BTreeSet;

use backup::retention::decide as shipped;
use shared::env::Retention;

use super::Answers;
use crate::model::names;
use crate::model::world::BackupNumber;

thread_local! {
    static EXPIRED: Answers<(Vec<BackupNumber>, Vec<BackupNumber>), Vec<BackupNumber>> = Answers::new();
}

/// Asks which of these backups, oldest first, are taken away, where the second ones are kept.
pub(in crate::model) fn expired(
    question: &(Vec<BackupNumber>, Vec<BackupNumber>),
) -> Vec<BackupNumber> {
    EXPIRED.with(|answers| {
        answers.of(question, |(backups, kept)| {
            let ids = |numbers: &[BackupNumber]| -> BTreeSet<_> {
                numbers.iter().copied().map(names::backup_id).collect()
            };
            let newest = backups.last().copied().unwrap_or(0).max(names::OLD);
            let policy = Retention::default();
            let expired =
                shipped::expired(&policy, &ids(backups), &ids(kept), names::asked_at(newest));
            expired.iter().map(names::backup).collect()
        })
    })
}
