//! Listings of the bucket: backups by their manifests, commit markers, pins, and the objects below `backups/`.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::operation::list_objects_v2::builders::ListObjectsV2FluentBuilder;
use time::{Duration, OffsetDateTime};

use super::s3::{advise, of_s3};
use super::{failed, utc};
use crate::error::Result;
use crate::id::{ApplicationName, BackupId};
use crate::layout::{self, BackupState};

const LIST_OBJECTS: &str = "s3:ListObjectsV2";

/// The newest days of backups, which are listed first. A running application has backups there.
const RECENT: Duration = Duration::days(31);

/// Returns the ids of an application's newest backups in one state, newest first and at most `count`.
///
/// S3 lists keys in ascending order only. So this lists the days first (only the recent ones, if they suffice), then
/// the backups of the newest days one by one. The number of calls depends on `count`, not on the number of backups. A
/// backup's time is that of its key, not S3's.
///
/// # Errors
/// [`crate::Error::Aws`] if S3 fails.
pub async fn newest(
    client: &Client,
    bucket: &str,
    application: &ApplicationName,
    state: BackupState,
    count: usize,
    now: OffsetDateTime,
) -> Result<Vec<BackupId>> {
    let recent = BackupId::at(now - RECENT).day();
    let days = days(client, bucket, application, state, Some(&recent)).await?;
    let mut newest = newest_of_days(client, bucket, application, state, count, &days).await?;
    if newest.len() < count {
        let mut older = self::days(client, bucket, application, state, None).await?;
        older.retain(|day| !days.contains(day));
        let missing = count - newest.len();
        newest.extend(newest_of_days(client, bucket, application, state, missing, &older).await?);
    }
    Ok(newest)
}

/// Returns the backups with a commit marker of all applications, from `since` on and before `until`. It makes one call
/// for each thousand markers.
///
/// The marker is written after the manifest, best effort. If a marker exists, its backup is committed; if it is
/// missing, check the manifest.
///
/// # Errors
/// [`crate::Error::Aws`] if S3 fails.
pub async fn commits(
    client: &Client,
    bucket: &str,
    since: OffsetDateTime,
    until: OffsetDateTime,
) -> Result<Vec<(ApplicationName, BackupId)>> {
    let request = client
        .list_objects_v2()
        .bucket(bucket)
        .prefix(layout::COMMITS)
        .start_after(layout::commits_from(&BackupId::at(since)));
    let end = layout::commits_from(&BackupId::at(until));
    let mut found = Vec::new();
    each_page(bucket, request, &mut |page| {
        for key in keys(page) {
            if key > end {
                return ControlFlow::Break(());
            }
            found.extend(layout::commit_of_key(&key));
        }
        ControlFlow::Continue(())
    })
    .await?;
    Ok(found)
}

/// Returns the applications that have backups in one state, with one call for each thousand applications.
///
/// # Errors
/// [`crate::Error::Aws`] if S3 fails.
pub async fn applications(
    client: &Client,
    bucket: &str,
    state: BackupState,
) -> Result<BTreeSet<ApplicationName>> {
    let prefix = state.prefix_of_all();
    let request = client
        .list_objects_v2()
        .bucket(bucket)
        .prefix(&prefix)
        .delimiter("/");
    let applications = listed(bucket, request, |page| folders(page, &prefix)).await?;
    let applications = applications
        .iter()
        .filter_map(|application| application.parse().ok());
    Ok(applications.collect())
}

/// Returns all backups of an application in one state.
///
/// # Errors
/// [`crate::Error::Aws`] if S3 fails.
pub async fn all(
    client: &Client,
    bucket: &str,
    application: &ApplicationName,
    state: BackupState,
) -> Result<BTreeSet<BackupId>> {
    let found = backups_below(
        client,
        bucket,
        application,
        state,
        state.prefix(application),
    )
    .await?;
    Ok(found.into_iter().collect())
}

/// Returns the pinned backups of an application.
///
/// # Errors
/// [`crate::Error::Aws`] if S3 fails.
pub async fn pinned(
    client: &Client,
    bucket: &str,
    application: &ApplicationName,
) -> Result<BTreeSet<BackupId>> {
    let prefix = layout::pins(application);
    let request = client.list_objects_v2().bucket(bucket).prefix(&prefix);
    let pins = listed(bucket, request, |page| {
        let keys = page.contents().iter().filter_map(|object| object.key());
        keys.filter_map(|key| key.strip_prefix(&prefix)?.parse().ok())
            .collect()
    });
    Ok(pins.await?.into_iter().collect())
}

/// Returns the keys of all objects of one backup, of all its runs.
///
/// # Errors
/// [`crate::Error::Aws`] if S3 fails.
pub async fn objects_of(
    client: &Client,
    bucket: &str,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<Vec<String>> {
    let prefix = layout::backup(application, backup);
    let request = client.list_objects_v2().bucket(bucket).prefix(prefix);
    listed(bucket, request, keys).await
}

/// Returns the keys of the exceptions of all restores of a backup, each with the time when it was written.
///
/// # Errors
/// [`crate::Error::Aws`] if S3 fails.
pub async fn exceptions(
    client: &Client,
    bucket: &str,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<Vec<(String, OffsetDateTime)>> {
    let prefix = layout::exceptions_prefix(application, backup);
    let request = client.list_objects_v2().bucket(bucket).prefix(prefix);
    listed(bucket, request, keys_and_times).await
}

/// Calls `see` with the key of each object below an application's `backups/` and the time when it was written, in
/// ascending order of the keys, until `see` returns `Break`.
///
/// # Errors
/// [`crate::Error::Aws`] if S3 fails.
pub async fn each_object(
    client: &Client,
    bucket: &str,
    application: &ApplicationName,
    see: &mut (dyn FnMut(&str, OffsetDateTime) -> ControlFlow<()> + Send),
) -> Result<()> {
    let prefix = layout::backups(application);
    let request = client.list_objects_v2().bucket(bucket).prefix(prefix);
    each_page(bucket, request, &mut |page| {
        let mut objects = keys_and_times(page).into_iter();
        objects.try_for_each(|(key, written_at)| see(&key, written_at))
    })
    .await
}

/// Returns the keys of the images of an application's containers, each with the time when it was written.
///
/// # Errors
/// [`crate::Error::Aws`] if S3 fails.
pub async fn images(
    client: &Client,
    bucket: &str,
    application: &ApplicationName,
) -> Result<Vec<(String, OffsetDateTime)>> {
    let prefix = layout::images(application);
    let request = client.list_objects_v2().bucket(bucket).prefix(prefix);
    listed(bucket, request, keys_and_times).await
}

/// Returns the days on which an application has manifests, in ascending order, from the day `from` on if it is given.
async fn days(
    client: &Client,
    bucket: &str,
    application: &ApplicationName,
    state: BackupState,
    from: Option<&str>,
) -> Result<Vec<String>> {
    let prefix = state.prefix(application);
    let request = client
        .list_objects_v2()
        .bucket(bucket)
        .prefix(&prefix)
        .delimiter("/")
        .set_start_after(from.map(|day| format!("{prefix}{day}")));
    listed(bucket, request, |page| folders(page, &prefix)).await
}

async fn newest_of_days(
    client: &Client,
    bucket: &str,
    application: &ApplicationName,
    state: BackupState,
    count: usize,
    days: &[String],
) -> Result<Vec<BackupId>> {
    let mut newest = Vec::new();
    for day in days.iter().rev() {
        if newest.len() >= count {
            break;
        }
        // A schedule of one minute makes 1,440 a day, which are two pages.
        let prefix = state.prefix_of_day(application, day);
        let mut of_day = backups_below(client, bucket, application, state, prefix).await?;
        of_day.sort_unstable();
        newest.extend(of_day.into_iter().rev().take(count - newest.len()));
    }
    Ok(newest)
}

/// Returns the backups that have a manifest below a prefix.
async fn backups_below(
    client: &Client,
    bucket: &str,
    application: &ApplicationName,
    state: BackupState,
    prefix: String,
) -> Result<Vec<BackupId>> {
    let request = client.list_objects_v2().bucket(bucket).prefix(prefix);
    listed(bucket, request, |page| manifests(page, application, state)).await
}

/// Returns the backups that have a manifest on a page of a listing.
fn manifests(
    page: &ListObjectsV2Output,
    application: &ApplicationName,
    state: BackupState,
) -> Vec<BackupId> {
    let backups = keys(page).into_iter().filter_map(|key| {
        let backup = layout::backup_of_manifest(&key)?;
        (state.manifest(application, &backup) == key).then_some(backup)
    });
    backups.collect()
}

/// Returns the names between a prefix and the next slash.
fn folders(page: &ListObjectsV2Output, prefix: &str) -> Vec<String> {
    let names = page.common_prefixes().iter().filter_map(|found| {
        let name = found.prefix()?.strip_prefix(prefix)?.strip_suffix('/')?;
        Some(name.to_owned())
    });
    names.collect()
}

fn keys(page: &ListObjectsV2Output) -> Vec<String> {
    let keys = page.contents().iter().filter_map(|object| object.key());
    keys.map(str::to_owned).collect()
}

fn keys_and_times(page: &ListObjectsV2Output) -> Vec<(String, OffsetDateTime)> {
    let objects = page.contents().iter().filter_map(|object| {
        let written_at = object.last_modified().and_then(utc)?;
        Some((object.key()?.to_owned(), written_at))
    });
    objects.collect()
}

/// Returns the items that `find` finds on each page of a listing.
async fn listed<T: Send>(
    bucket: &str,
    request: ListObjectsV2FluentBuilder,
    find: impl Fn(&ListObjectsV2Output) -> Vec<T> + Send + Sync,
) -> Result<Vec<T>> {
    let mut found = Vec::new();
    each_page(bucket, request, &mut |page| {
        found.extend(find(page));
        ControlFlow::Continue(())
    })
    .await?;
    Ok(found)
}

/// Calls `see` with each page of a listing, until there are no more pages or it returns `Break`. This is not generic
/// because its compiled code is large.
async fn each_page(
    bucket: &str,
    request: ListObjectsV2FluentBuilder,
    see: &mut (dyn FnMut(&ListObjectsV2Output) -> ControlFlow<()> + Send),
) -> Result<()> {
    let mut pages = request.into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(failed(LIST_OBJECTS)).map_err(advise(bucket))?;
        // A response without the name of the bucket did not come from S3, so it does not prove that the bucket is
        // empty.
        of_s3(LIST_OBJECTS, page.name())?;
        if see(&page).is_break() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
