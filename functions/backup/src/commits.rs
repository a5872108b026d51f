//! What was committed lately, of all applications in one listing: an application's own would cost a tick one call for each application.
//!
//! A manifest is what makes a backup exist. What is said here is put after it, and never without it; but its put may fail
//! or be on its way. So what is said is believed, and what is not is looked for among the manifests: a backup before it is
//! committed again, and an application's newest where nothing is said of the application. The age of the newest may come out an interval
//! too old, where what would have said so is lost; too young it is only where a manifest is deleted by hand.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};

use shared::aws::{catalog, s3};
use shared::budget;
use shared::id::{ApplicationName, BackupId};
use shared::layout;
use time::OffsetDateTime;
use tracing::warn;

use crate::decide::seconds;
use crate::failures::Failures;
use crate::function::Function;

/// Says of a backup that its manifest is in place.
pub(crate) async fn say(function: &Function, application: &ApplicationName, backup: &BackupId) {
    let (client, bucket) = (&function.aws.s3, &function.config.bucket);
    let key = layout::commit(application, backup);
    if let Err(error) = s3::create(client, bucket, &key, Vec::new(), "text/plain").await {
        warn!(application = %application, backup_id = %backup, problem = error.chain(),
            "ticks and sweeps will ask for this backup's manifest");
    }
}

/// What is said of the backups from some time on.
#[derive(Debug)]
pub(crate) struct Commits {
    since: OffsetDateTime,
    said: HashMap<ApplicationName, BTreeSet<BackupId>>,
    /// Whether something of it could not be listed.
    gaps: bool,
}

impl Commits {
    /// Starts without having listed anything.
    pub(crate) fn unlisted(now: OffsetDateTime) -> Self {
        Self {
            // A tick may lie so far ahead of this clock.
            since: now + seconds(budget::MARGIN),
            said: HashMap::new(),
            gaps: false,
        }
    }

    /// Makes sure that everything from `since` on is listed. Where that fails, the manifests are asked instead; it is a failure
    /// all the same, since it would cost every event that many calls.
    pub(crate) async fn reach(
        &mut self,
        function: &Function,
        since: OffsetDateTime,
        failures: &mut Failures<'_>,
    ) {
        if since >= self.since {
            return;
        }
        let (client, bucket) = (&function.aws.s3, &function.config.bucket);
        let listed = catalog::commits(client, bucket, since, self.since).await;
        let listed = failures.keep(None, listed);
        self.gaps |= listed.is_none();
        for (application, backup) in listed.unwrap_or_default() {
            self.learn(application, backup);
        }
        self.since = since;
    }

    /// Takes in a commit that was not listed.
    pub(crate) fn learn(&mut self, application: ApplicationName, backup: BackupId) {
        self.said.entry(application).or_default().insert(backup);
    }

    /// Tells whether a backup is known to be committed.
    pub(crate) fn has(&self, application: &ApplicationName, backup: &BackupId) -> bool {
        self.said
            .get(application)
            .is_some_and(|backups| backups.contains(backup))
    }

    /// Returns the newest backup of an application that is known to be committed; none where a newer one may have been overlooked.
    pub(crate) fn newest(&self, application: &ApplicationName) -> Option<&BackupId> {
        let newest = self.said.get(application)?.last();
        newest.filter(|_| !self.gaps)
    }
}
