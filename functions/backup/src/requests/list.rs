//! The request that lists an application's newest backups.

use std::collections::BTreeSet;

use futures_util::stream::{self, StreamExt as _};
use shared::Result;
use shared::aws::catalog;
use shared::aws::manifests::Manifests;
use shared::function::context::Context;
use shared::id::{ApplicationName, BackupId};
use shared::layout::BackupState;
use time::OffsetDateTime;

use crate::answer::{Answer, Summary};

/// The most backups that one listing contains.
const MOST_LISTED: usize = 200;
/// How many manifests are read in parallel.
const READS_AT_ONCE: usize = 8;

/// Lists an application's newest backups, committed and quarantined ones.
pub(super) async fn list(
    context: &Context,
    application: ApplicationName,
    limit: usize,
    now: OffsetDateTime,
) -> Result<Answer> {
    let (client, bucket) = (&context.aws.s3, &context.config.bucket);
    let limit = limit.clamp(1, MOST_LISTED);
    let mut ids = Vec::new();
    for state in [BackupState::Committed, BackupState::Quarantined] {
        let newest = catalog::newest(client, bucket, &application, state, limit, now).await?;
        ids.extend(newest.into_iter().map(|id| (id, state)));
    }
    ids.sort_by(|(a, _), (b, _)| b.cmp(a));
    ids.truncate(limit);
    let pinned = catalog::pinned(client, bucket, &application).await?;
    let (manifests, pinned) = (context.manifests(&application), &pinned);
    let summaries: Vec<Result<Summary>> = stream::iter(ids)
        .map(|(id, state)| summarize(manifests, pinned, state, id))
        .buffered(READS_AT_ONCE)
        .collect()
        .await;
    let backups = summaries.into_iter().collect::<Result<Vec<Summary>>>()?;
    Ok(Answer::Backups {
        application,
        backups,
    })
}

/// Returns one entry of the listing. If a manifest is unreadable, its entry has the problem, and the others are listed.
async fn summarize(
    manifests: Manifests<'_>,
    pinned: &BTreeSet<BackupId>,
    state: BackupState,
    backup_id: BackupId,
) -> Result<Summary> {
    let unreadable = |backup_id, problem: String| Ok(Summary::Unreadable { backup_id, problem });
    match manifests.read(state, &backup_id).await {
        Ok(Some(manifest)) => Ok(Summary::Backup {
            pinned: pinned.contains(&backup_id),
            backup_id,
            purpose: manifest.index.purpose,
            committed_at: manifest.committed_at,
            rows: manifest.index.rows(),
            bytes: manifest.index.bytes(),
            instance_id: manifest.index.node.instance_id,
            // The manifest of an accepted backup still contains the reason.
            quarantined_for: manifest
                .quarantined_for
                .filter(|_| state == BackupState::Quarantined),
        }),
        Ok(None) => unreadable(backup_id, "it was deleted after the listing".to_owned()),
        Err(error) if error.retryable() => Err(error),
        Err(error) => unreadable(backup_id, error.chain()),
    }
}
