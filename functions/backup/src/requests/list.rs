//! The request that lists an application's newest backups.

use std::collections::BTreeSet;

use futures_util::stream::{self, StreamExt as _};
use shared::Result;
use shared::aws::{catalog, s3};
use shared::function::context::Context;
use shared::id::{ApplicationName, BackupId};
use shared::layout::BackupState;
use shared::report::exceptions::ExceptionsRecord;
use time::OffsetDateTime;

use crate::answer::{Answer, ExceptionsOf, Summary};

/// The most backups that one listing contains.
const MOST_LISTED: usize = 200;
/// The largest object with exceptions that is read, in bytes.
const MOST_EXCEPTIONS_BYTES: u64 = 16 * 1024 * 1024;
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
    let (name, pinned) = (&application, &pinned);
    let summaries: Vec<Result<Summary>> = stream::iter(ids)
        .map(|(id, state)| summarize(context, name, pinned, state, id))
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
    context: &Context,
    application: &ApplicationName,
    pinned: &BTreeSet<BackupId>,
    state: BackupState,
    backup_id: BackupId,
) -> Result<Summary> {
    let unreadable = |backup_id, problem: String| Ok(Summary::Unreadable { backup_id, problem });
    let manifests = context.manifests(application);
    let (manifest, exceptions) = tokio::join!(
        manifests.read(state, &backup_id),
        exceptions_of(context, application, &backup_id)
    );
    match manifest {
        Ok(Some(manifest)) => Ok(Summary::Backup {
            pinned: pinned.contains(&backup_id),
            exceptions: exceptions?,
            backup_id,
            purpose: manifest.index.purpose,
            committed_at: manifest.committed_at,
            rows: manifest.index.rows(),
            bytes: manifest.index.bytes(),
            instance_id: manifest.index.node.instance_id,
            skipped_databases: manifest.index.skipped_databases,
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

/// Returns the exceptions of a backup's newest restore that had any, or `None` if there is none.
async fn exceptions_of(
    context: &Context,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<Option<ExceptionsOf>> {
    let (client, bucket) = (&context.aws.s3, &context.config.bucket);
    let objects = catalog::exceptions(client, bucket, application, backup).await?;
    let newest = objects
        .into_iter()
        .max_by_key(|(_, written_at)| *written_at);
    let Some((key, _)) = newest else {
        return Ok(None);
    };
    let count = match s3::read(client, bucket, &key, None, MOST_EXCEPTIONS_BYTES).await {
        Ok(bytes) => serde_json::from_slice::<ExceptionsRecord>(&bytes)
            .ok()
            .map(|record| record.exceptions.len()),
        Err(error) if error.retryable() => return Err(error),
        Err(_) => None,
    };
    Ok(Some(ExceptionsOf { count, key }))
}
