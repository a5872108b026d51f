//! Retention: taking away the backups that nobody needs any more, and what attempts without a manifest have left.
//!
//! It follows a backup that was just committed, and nothing else. Manifests go first, so that none ever points at an
//! object that is not there; what a pass leaves undone, the next one does. In a bucket that keeps versions, everything
//! can be brought back for as long as it keeps them.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use shared::aws::{catalog, s3};
use shared::id::{ApplicationName, BackupId, RunId};
use shared::layout::{self, BackupState};
use shared::{Error, Result};
use time::OffsetDateTime;
use tracing::info;

use crate::decide::retention;
use crate::failures::report;
use crate::function::Function;
use crate::{images, stored};

/// The most backups of a state that one pass takes away, so that the first one over an old bucket ends in time.
const MOST_AT_ONCE: usize = 200;

/// Makes a pass after this backup was committed. A pass that fails is told, and does not make the backup fail.
pub(crate) async fn after(
    function: &Function,
    application: &ApplicationName,
    backup: &BackupId,
    now: OffsetDateTime,
) {
    match pass(function, application, backup, now).await {
        Ok((0, 0, 0)) => {}
        Ok((backups, orphans, images)) => {
            info!(application = %application, backups, orphans, images, decision = "Retire", "old backups were taken away");
        }
        Err(error) => {
            let message = format!(
                "old backups are not taken away: {}; the next backup's pass tries it again",
                error.chain()
            );
            report(&function.config, Some(application), "Retention", &message);
        }
    }
}

/// Returns how many backups, orphaned attempts and images were taken away.
async fn pass(
    function: &Function,
    application: &ApplicationName,
    backup: &BackupId,
    now: OffsetDateTime,
) -> Result<(usize, usize, usize)> {
    let (client, bucket) = (&function.aws.s3, &function.config.bucket);
    // In this order: an accepted backup wanders from the first to the second, and must not be missed in both.
    let aside = catalog::all(client, bucket, application, BackupState::Quarantined).await?;
    let committed = catalog::all(client, bucket, application, BackupState::Committed).await?;
    let retired = retire(
        function,
        application,
        BackupState::Committed,
        &committed,
        now,
    )
    .await?
        + retire(function, application, BackupState::Quarantined, &aside, now).await?;
    // A listing of everything once an hour is enough.
    if !is_first_of_its_hour(&committed, backup) {
        return Ok((retired, 0, 0));
    }
    let owners = committed.union(&aside).cloned().collect();
    let orphans = collect(function, application, &owners, now).await?;
    let images = images::collect(function, application, &owners, now).await?;
    Ok((retired, orphans, images))
}

fn is_first_of_its_hour(backups: &BTreeSet<BackupId>, backup: &BackupId) -> bool {
    let hour = |backup: &BackupId| (backup.time().date(), backup.time().hour());
    let first = backups.iter().find(|other| hour(other) == hour(backup));
    first.is_none_or(|first| first >= backup)
}

async fn retire(
    function: &Function,
    application: &ApplicationName,
    state: BackupState,
    backups: &BTreeSet<BackupId>,
    now: OffsetDateTime,
) -> Result<usize> {
    let (client, bucket) = (&function.aws.s3, &function.config.bucket);
    let policy = &function.config.retention;
    let mut kept = catalog::pinned(client, bucket, application).await?;
    if retention::expired(policy, backups, &kept, now).is_empty() {
        return Ok(0);
    }
    kept.extend(newest_good(function, application, state, backups, policy.at_least).await?);
    let mut expired = retention::expired(policy, backups, &kept, now);
    expired.truncate(MOST_AT_ONCE);

    let mut taken = Vec::new();
    for backup in expired {
        if let Some(manifest) = stored::bytes(function, application, state, &backup).await? {
            s3::delete(client, bucket, &[state.manifest(application, &backup)]).await?;
            taken.push((backup, manifest));
        }
    }
    // Whoever pinned one of them before its manifest went is obeyed; whoever did so later was told that it is gone.
    let pinned = catalog::pinned(client, bucket, application).await?;
    let mut count = 0;
    for (backup, manifest) in taken {
        if pinned.contains(&backup) {
            let key = state.manifest(application, &backup);
            s3::create(client, bucket, &key, manifest, "application/json").await?;
        } else if !stored::is_settled(function, application, &backup).await? {
            let objects = catalog::objects_of(client, bucket, application, &backup).await?;
            s3::delete(client, bucket, &objects).await?;
            count += 1;
        }
    }
    Ok(count)
}

/// Returns the newest backups whose manifest can be read, at most `count`.
async fn newest_good(
    function: &Function,
    application: &ApplicationName,
    state: BackupState,
    backups: &BTreeSet<BackupId>,
    count: usize,
) -> Result<BTreeSet<BackupId>> {
    let mut good = BTreeSet::new();
    for backup in backups.iter().rev() {
        if good.len() == count {
            break;
        }
        match stored::on_shelf(function, application, state, backup).await {
            Ok(Some(_)) => {
                good.insert(backup.clone());
            }
            Ok(None) | Err(Error::Contract { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(good)
}

/// Takes away what attempts have left that no manifest names; returns how many attempts.
async fn collect(
    function: &Function,
    application: &ApplicationName,
    owners: &BTreeSet<BackupId>,
    now: OffsetDateTime,
) -> Result<usize> {
    let (client, bucket) = (&function.aws.s3, &function.config.bucket);
    let attempts = old_attempts(function, application, now).await?;
    let mut owned: BTreeMap<BackupId, Option<RunId>> =
        owners.iter().map(|backup| (backup.clone(), None)).collect();
    for ((backup, _), (next, _)) in attempts.keys().zip(attempts.keys().skip(1)) {
        // Of a single attempt there is nothing to choose.
        if backup == next
            && let Some(owner) = owned.get_mut(backup)
            && let Some((_, manifest)) = stored::anywhere(function, application, backup).await?
        {
            *owner = Some(manifest.index.run_id);
        }
    }
    let orphans = retention::orphans(&attempts, &owned, now);
    for (backup, run) in &orphans {
        let mut objects = catalog::objects_of(client, bucket, application, backup).await?;
        let prefix = layout::run_prefix(application, backup, run);
        objects.retain(|key| key.starts_with(&prefix));
        s3::delete(client, bucket, &objects).await?;
    }
    Ok(orphans.len())
}

/// Lists the attempts that are old enough to be looked at, each with the time of its newest object.
async fn old_attempts(
    function: &Function,
    application: &ApplicationName,
    now: OffsetDateTime,
) -> Result<BTreeMap<(BackupId, RunId), OffsetDateTime>> {
    let (client, bucket) = (&function.aws.s3, &function.config.bucket);
    let mut attempts = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let page = catalog::objects_after(client, bucket, application, after.as_deref()).await?;
        let Some((last, _)) = page.last() else {
            return Ok(attempts);
        };
        after = Some(last.clone());
        for (key, put_at) in &page {
            // What is none of ours is left alone.
            let Some(attempt) = layout::attempt_of_object(application, key) else {
                continue;
            };
            // Keys come in the order of time.
            if now - attempt.0.time() < retention::UNTOUCHED {
                return Ok(attempts);
            }
            let newest = attempts.entry(attempt).or_insert(*put_at);
            *newest = (*newest).max(*put_at);
        }
    }
}
