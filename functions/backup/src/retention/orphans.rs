//! Deletes the objects of runs that no manifest names. A run is one attempt at a backup.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use shared::Result;
use shared::aws::catalog;
use shared::id::{BackupId, RunId};
use shared::layout;
use time::OffsetDateTime;

use super::decide::{self, UNTOUCHED};
use super::pass::Pass;

impl Pass<'_> {
    /// Deletes the objects of runs without a manifest, and the exceptions of restores of their backups. Returns the number
    /// of runs. `owners` are all backups that have a manifest.
    pub(super) async fn delete_orphans(&self, owners: &BTreeSet<BackupId>) -> Result<usize> {
        let runs = self.old_runs().await?;
        let manifests = self.context.manifests(self.application);
        let mut owned: BTreeMap<BackupId, Option<RunId>> =
            owners.iter().map(|backup| (backup.clone(), None)).collect();
        for ((backup, _), (next, _)) in runs.keys().zip(runs.keys().skip(1)) {
            // If a backup has one run only, its manifest need not be read.
            if backup == next
                && let Some(owner) = owned.get_mut(backup)
                && let Some((_, manifest)) = manifests.find(backup).await?
            {
                *owner = Some(manifest.index.run_id);
            }
        }
        let orphans = decide::orphans(&runs, &owned, self.now);
        for (backup, run) in &orphans {
            let mut objects = self.objects_of(backup).await?;
            let prefix = layout::run_prefix(self.application, backup, run);
            let exceptions = layout::exceptions_prefix(self.application, backup);
            let has_manifest = owned.contains_key(backup);
            objects.retain(|key| {
                key.starts_with(&prefix) || (!has_manifest && key.starts_with(&exceptions))
            });
            self.delete(&objects).await?;
        }
        Ok(orphans.len())
    }

    /// Returns the runs that are old enough to be deleted, each with the time of its newest object.
    async fn old_runs(&self) -> Result<BTreeMap<(BackupId, RunId), OffsetDateTime>> {
        let (client, bucket) = (&self.context.aws.s3, &self.context.config.bucket);
        let mut runs = BTreeMap::new();
        catalog::each_object(client, bucket, self.application, &mut |key, written_at| {
            // Objects with other keys are exceptions of restores, or not Rekindle's.
            let Some(run) = layout::run_of_object(self.application, key) else {
                return ControlFlow::Continue(());
            };
            // The keys are sorted by time, so all later runs are younger.
            if self.now - run.0.time() < UNTOUCHED {
                return ControlFlow::Break(());
            }
            let newest = runs.entry(run).or_insert(written_at);
            *newest = (*newest).max(written_at);
            ControlFlow::Continue(())
        })
        .await?;
        Ok(runs)
    }
}
