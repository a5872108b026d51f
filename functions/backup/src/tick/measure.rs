//! The metrics of each application at each tick: the age of its newest backup, and whether backups are quarantined.

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use futures_util::stream::{self, StreamExt as _};
use shared::Result;
use shared::aws::{catalog, state};
use shared::budget::{self, seconds};
use shared::function::context::Context;
use shared::function::failure::Failures;
use shared::function::metrics::{self, Metric};
use shared::id::{ApplicationName, BackupId, Subject};
use shared::layout::BackupState;
use time::OffsetDateTime;
use tracing::info;

use crate::commit_markers::CommitMarkers;

/// How many applications are measured in parallel.
const APPLICATIONS_AT_ONCE: usize = 16;

/// Measures every application.
///
/// First lists the commit markers of the newest backups of the default schedule. If most applications have none there,
/// the schedule's interval is longer, so it lists older markers too. For each application without a listed marker, it
/// lists the manifests.
pub(super) async fn measure_all(
    context: &Context,
    applications: &HashSet<ApplicationName>,
    markers: &mut CommitMarkers,
    now: OffsetDateTime,
    failures: &mut Failures<'_>,
) {
    let without_marker = |markers: &CommitMarkers| {
        let without = applications
            .iter()
            .filter(|application| markers.newest(application).is_none());
        without.count()
    };
    let recent = now - seconds(budget::SCHEDULE + budget::BACKUP_EXECUTION);
    // A tick's event may be late, and the backup's id is the time of the tick.
    let longest = now - seconds(budget::COMMIT_WINDOW + budget::BACKUP_EVENT_AGE);
    if without_marker(markers) > 0 {
        markers.list_since(context, recent, failures).await;
    }
    if 2 * without_marker(markers) > applications.len() {
        markers.list_since(context, longest, failures).await;
    }
    let (s3, bucket) = (&context.aws.s3, context.config.bucket.as_str());
    let quarantined = catalog::applications(s3, bucket, BackupState::Quarantined).await;
    let message = "the applications with quarantined backups were not listed";
    let quarantined = failures.keep(Subject::default(), message, quarantined);
    let quarantined = quarantined.unwrap_or_default();
    // Calls are needed only in a new process, or for an application without a commit marker.
    let measurements = applications.iter().map(|application| {
        let observed = Observed {
            application,
            newest: markers.newest(application).cloned(),
            has_quarantined: quarantined.contains(application),
        };
        async move { (application, observed.measure(context, now).await) }
    });
    let mut measurements = stream::iter(measurements).buffer_unordered(APPLICATIONS_AT_ONCE);
    while let Some((application, measured)) = measurements.next().await {
        let message = "the application was not measured";
        failures.keep(Subject::application(application), message, measured);
    }
}

/// One application's part of the listings of a tick.
struct Observed<'a> {
    application: &'a ApplicationName,
    /// The newest backup with a commit marker.
    newest: Option<BackupId>,
    has_quarantined: bool,
}

impl Observed<'_> {
    /// Prints the application's metrics, and writes its state again if the state is missing.
    async fn measure(self, context: &Context, now: OffsetDateTime) -> Result<()> {
        let (aws, config, application) = (&context.aws, &context.config, self.application);
        let mut newest = self.newest;
        if newest.is_none() {
            let (s3, bucket) = (&aws.s3, config.bucket.as_str());
            let state = BackupState::Committed;
            let found = catalog::newest(s3, bucket, application, state, 1, now).await?;
            newest = found.into_iter().next();
        }
        let age = newest
            .as_ref()
            .map(|newest| (now - newest.time()).as_seconds_f64());
        let age = age.map(|age| (Metric::BackupAge, age));
        let quarantined = self
            .has_quarantined
            .then_some((Metric::BackupsQuarantined, 1.0));
        let values: Vec<(Metric, f64)> = age.into_iter().chain(quarantined).collect();
        metrics::measured(&config.metric_namespace, now, application, &values);
        match newest {
            Some(newest) => repair_state(context, application, &newest).await,
            None => Ok(()),
        }
    }
}

/// Writes an application's state if it is missing although the application has a backup.
async fn repair_state(
    context: &Context,
    application: &ApplicationName,
    newest: &BackupId,
) -> Result<()> {
    if context.applications_with_state.contains(application) {
        return Ok(());
    }
    if state::ensure(&context.aws.ssm, application, newest).await? {
        info!(
            %application,
            backup_id = %newest,
            decision = "repair-state",
            "wrote the application's missing state"
        );
    }
    context.applications_with_state.insert(application.clone());
    Ok(())
}
