//! Retention: deletes old backups, the objects of runs without a manifest, and images that no backup names.
//!
//! It runs after a new commit, never on its own. Manifests are deleted first, so that none names a missing object. If
//! a pass is cut off, the next one continues. In a versioned bucket, deleted objects can be restored while their
//! versions are kept.

pub mod decide;
mod expired;
mod images;
mod orphans;
mod pass;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use shared::Result;
use shared::function::context::Context;
use shared::function::failure;
use shared::id::{ApplicationName, BackupId, Subject};
use shared::kind::Kind;
use shared::layout::BackupState;
use time::OffsetDateTime;
use tracing::info;

use self::pass::Pass;

/// Runs retention after the commit of a backup. A failure is recorded; the backup stays committed.
pub(crate) async fn after_commit(
    context: &Context,
    application: &ApplicationName,
    backup: &BackupId,
    now: OffsetDateTime,
) {
    let pass = Pass {
        context,
        application,
        now,
    };
    match pass.run(backup).await {
        Ok(deleted) if deleted == Deleted::default() => {}
        Ok(Deleted {
            backups,
            orphans,
            images,
        }) => info!(
            %application,
            backup_id = %backup,
            backups,
            orphans,
            images,
            decision = "delete-old-backups",
            "deleted old backups"
        ),
        Err(error) => {
            let subject = Subject {
                backup_id: Some(backup),
                ..Subject::application(application)
            };
            let message =
                "old backups were not deleted; retention runs again after the next backup";
            failure::record(context, subject, Kind::Retention, message, &error.chain());
        }
    }
}

/// The numbers of backups, orphans and images that a pass deleted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Deleted {
    backups: usize,
    /// Runs without a manifest.
    orphans: usize,
    images: usize,
}

impl Pass<'_> {
    /// Deletes expired backups, orphans and unnamed images. `backup` is the one that was just committed.
    async fn run(&self, backup: &BackupId) -> Result<Deleted> {
        // In this order: an accepted backup moves from the first state to the second, and must be seen in one of them.
        let quarantined = self.all(BackupState::Quarantined).await?;
        let committed = self.all(BackupState::Committed).await?;
        let mut deleted = Deleted {
            backups: self
                .delete_expired(BackupState::Committed, &committed)
                .await?
                + self
                    .delete_expired(BackupState::Quarantined, &quarantined)
                    .await?,
            ..Deleted::default()
        };
        // Listing all objects once an hour is enough.
        if is_first_of_its_hour(&committed, backup) {
            let owners = committed.union(&quarantined).cloned().collect();
            deleted.orphans = self.delete_orphans(&owners).await?;
            deleted.images = self.delete_unnamed_images(&owners).await?;
        }
        Ok(deleted)
    }
}

fn is_first_of_its_hour(backups: &BTreeSet<BackupId>, backup: &BackupId) -> bool {
    let hour = |backup: &BackupId| (backup.time().date(), backup.time().hour());
    let first = backups.iter().find(|other| hour(other) == hour(backup));
    first.is_none_or(|first| first >= backup)
}
