//! What was committed lately, of all stacks in one listing: a stack's own would cost a tick one call for each stack.
//!
//! A manifest is what makes a backup exist. What is said here is put after it, and never without it; but its put may fail
//! or be on its way. So what is said is believed, and what is not is looked for among the manifests: a backup before it is
//! committed again, and a stack's newest where nothing is said of the stack. The age of the newest may come out an interval
//! too old, where what would have said so is lost; too young it is only where a manifest is deleted by hand.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};

use shared::aws::{catalog, s3};
use shared::budget;
use shared::id::{BackupId, StackName};
use shared::layout;
use time::OffsetDateTime;
use tracing::warn;

use crate::decide::seconds;
use crate::failures::Failures;
use crate::function::Function;

/// Says of a backup that its manifest is in place.
pub(crate) async fn say(function: &Function, stack: &StackName, backup: &BackupId) {
    let (client, bucket) = (&function.aws.s3, &function.config.bucket);
    let key = layout::commit(stack, backup);
    if let Err(error) = s3::create(client, bucket, &key, Vec::new(), "text/plain").await {
        warn!(stack = %stack, backup_id = %backup, problem = error.chain(),
            "ticks and sweeps will ask for this backup's manifest");
    }
}

/// What is said of the backups from some time on.
#[derive(Debug)]
pub(crate) struct Commits {
    since: OffsetDateTime,
    said: HashMap<StackName, BTreeSet<BackupId>>,
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
        for (stack, backup) in listed.unwrap_or_default() {
            self.learn(stack, backup);
        }
        self.since = since;
    }

    /// Takes in a commit that was not listed.
    pub(crate) fn learn(&mut self, stack: StackName, backup: BackupId) {
        self.said.entry(stack).or_default().insert(backup);
    }

    /// Tells whether a backup is known to be committed.
    pub(crate) fn has(&self, stack: &StackName, backup: &BackupId) -> bool {
        self.said
            .get(stack)
            .is_some_and(|backups| backups.contains(backup))
    }

    /// Returns the newest backup of a stack that is known to be committed; none where a newer one may have been overlooked.
    pub(crate) fn newest(&self, stack: &StackName) -> Option<&BackupId> {
        let newest = self.said.get(stack)?.last();
        newest.filter(|_| !self.gaps)
    }
}
