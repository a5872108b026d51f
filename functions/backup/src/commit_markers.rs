//! Commit markers: empty objects that list the recent commits of all applications in one call, not one for each
//! application.
//!
//! The marker is written after the manifest, best effort. If a marker exists, its backup is committed; if it is
//! missing, check the manifest. If the newest marker of an application is lost, its measured backup age is one
//! interval too old. The age is too young only if somebody deletes a manifest by hand.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};

use shared::aws::{catalog, s3};
use shared::budget::{self, seconds};
use shared::function::context::Context;
use shared::function::failure::Failures;
use shared::id::{ApplicationName, BackupId, Subject};
use shared::layout;
use time::OffsetDateTime;
use tracing::warn;

/// Writes the marker of a committed backup. A failure is only logged, because the backup exists without its marker.
pub(crate) async fn write(context: &Context, application: &ApplicationName, backup: &BackupId) {
    let (client, bucket) = (&context.aws.s3, &context.config.bucket);
    let key = layout::commit(application, backup);
    if let Err(error) = s3::create(client, bucket, &key, Vec::new(), "text/plain").await {
        warn!(
            %application,
            backup_id = %backup,
            reason = error.chain(),
            "the commit marker was not written; ticks and sweeps will check the manifest"
        );
    }
}

/// The commit markers that one invocation has listed.
#[derive(Debug)]
pub(crate) struct CommitMarkers {
    /// Markers of this time and later are listed.
    since: OffsetDateTime,
    listed: HashMap<ApplicationName, BTreeSet<BackupId>>,
    /// Whether a listing failed, so that markers may be missing.
    has_gaps: bool,
}

impl CommitMarkers {
    /// Returns an empty set, before the first listing.
    pub(crate) fn unlisted(now: OffsetDateTime) -> Self {
        Self {
            // The time of a tick may be ahead of this clock by at most this margin.
            since: now + seconds(budget::MARGIN),
            listed: HashMap::new(),
            has_gaps: false,
        }
    }

    /// Lists the markers from a time on that are not listed yet. If the listing fails, callers check the manifests. The
    /// failure is recorded, because otherwise nobody would notice these additional calls at every event.
    pub(crate) async fn list_since(
        &mut self,
        context: &Context,
        since: OffsetDateTime,
        failures: &mut Failures<'_>,
    ) {
        if since >= self.since {
            return;
        }
        let (client, bucket) = (&context.aws.s3, &context.config.bucket);
        let listed = catalog::commits(client, bucket, since, self.since).await;
        let message = "the commit markers were not listed";
        let listed = failures.keep(Subject::default(), message, listed);
        self.has_gaps |= listed.is_none();
        for (application, backup) in listed.unwrap_or_default() {
            self.add(application, backup);
        }
        self.since = since;
    }

    /// Adds a marker without listing it.
    pub(crate) fn add(&mut self, application: ApplicationName, backup: BackupId) {
        self.listed.entry(application).or_default().insert(backup);
    }

    /// Returns whether the marker of a backup is listed.
    pub(crate) fn contains(&self, application: &ApplicationName, backup: &BackupId) -> bool {
        self.listed
            .get(application)
            .is_some_and(|backups| backups.contains(backup))
    }

    /// Returns an application's newest backup with a listed marker, or `None` if a newer one may be missing.
    pub(crate) fn newest(&self, application: &ApplicationName) -> Option<&BackupId> {
        let newest = self.listed.get(application)?.last();
        newest.filter(|_| !self.has_gaps)
    }
}
