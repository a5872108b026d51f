//! Deletes expired backups: first their manifests, then their objects.

use std::collections::BTreeSet;

use shared::Result;
use shared::id::BackupId;
use shared::layout::BackupState;

use super::decide;
use super::pass::Pass;

/// The most backups of one state that a pass deletes, so that the first pass over an old bucket ends in time.
const MOST_AT_ONCE: usize = 200;

impl Pass<'_> {
    /// Deletes the expired backups of one state. Returns their number.
    pub(super) async fn delete_expired(
        &self,
        state: BackupState,
        backups: &BTreeSet<BackupId>,
    ) -> Result<usize> {
        let policy = &self.context.config.retention;
        let mut kept = self.pinned().await?;
        if decide::expired(policy, backups, &kept, self.now).is_empty() {
            return Ok(0);
        }
        kept.extend(self.newest_readable(state, backups).await?);
        let mut expired = decide::expired(policy, backups, &kept, self.now);
        expired.truncate(MOST_AT_ONCE);

        let manifests = self.context.manifests(self.application);
        let deleted = self.delete_manifests(state, expired).await?;
        // A pin that was written before its manifest was deleted keeps the backup. A later request to pin it is
        // refused, because the backup does not exist any more.
        let pinned = self.pinned().await?;
        let mut count = 0;
        for (backup, manifest) in deleted {
            if pinned.contains(&backup) {
                manifests.create(state, &backup, manifest).await?;
            } else if manifests.locate(&backup).await?.is_none() {
                self.delete(&self.objects_of(&backup).await?).await?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Deletes the manifests of backups. Returns those that were there.
    async fn delete_manifests(
        &self,
        state: BackupState,
        backups: Vec<BackupId>,
    ) -> Result<Vec<(BackupId, Vec<u8>)>> {
        let manifests = self.context.manifests(self.application);
        let mut deleted = Vec::new();
        for backup in backups {
            if let Some(manifest) = manifests.read_bytes(state, &backup).await? {
                manifests.delete(state, &backup).await?;
                deleted.push((backup, manifest));
            }
        }
        Ok(deleted)
    }

    /// Returns the newest backups with a readable manifest, as many as the policy keeps at any age.
    async fn newest_readable(
        &self,
        state: BackupState,
        backups: &BTreeSet<BackupId>,
    ) -> Result<BTreeSet<BackupId>> {
        let manifests = self.context.manifests(self.application);
        let count = self.context.config.retention.at_least;
        let mut readable = BTreeSet::new();
        for backup in backups.iter().rev() {
            if readable.len() == count {
                break;
            }
            if manifests.read_valid(state, backup).await?.is_some() {
                readable.insert(backup.clone());
            }
        }
        Ok(readable)
    }
}
