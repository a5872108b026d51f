//! Commits a complete backup: the only place where a backup begins to exist.
//!
//! The order is the guarantee. Every object is checked, then the rules of quarantine are applied, then the manifest
//! is written, below `manifests/` or `quarantine/`. The application's state and the commit marker follow a committed
//! manifest.

#[cfg(test)]
mod tests;

use futures_util::join;
use shared::aws::s3::Created;
use shared::aws::state;
use shared::function::context::Context;
use shared::function::failure;
use shared::function::metrics::{self, Metric};
use shared::id::{ApplicationName, BackupId};
use shared::kind::Kind;
use shared::layout::BackupState;
use shared::manifest::{Index, Manifest, ObjectRecord, SCHEMA_VERSION};
use shared::{Error, Result};
use time::OffsetDateTime;
use tracing::warn;

use super::index::{self, CompleteBackup};
use super::quarantine;
use super::quarantine::decide::QuarantineReason;
use crate::{commit_markers, objects};

/// The result for a complete backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Commit {
    /// The backup exists from now on.
    New,
    /// The same backup was committed before.
    Repeated,
    /// It is quarantined from now on.
    Quarantined(QuarantineReason),
    /// The same backup was quarantined before.
    AlreadyQuarantined,
}

/// Commits a backup after checking every object of it. Committing the same one twice is harmless.
///
/// # Errors
/// [`Error::Contract`] if an object or the index is not as reported, [`Error::Refused`] if another run has committed
/// this backup.
pub(crate) async fn commit(
    context: &Context,
    backup: &CompleteBackup<'_>,
    now: OffsetDateTime,
) -> Result<Commit> {
    let application = backup.node.application;
    let (index_object, index) = index::read(context, backup).await?;
    if let Some(earlier) = earlier_commit(context, application, &index, &index_object).await? {
        return Ok(earlier);
    }
    objects::check(context, index.needed()).await?;
    let reason = quarantine::reason(context, backup.node, &index, now).await?;
    let state = match reason {
        None => BackupState::Committed,
        Some(_) => BackupState::Quarantined,
    };
    let manifest = Manifest {
        schema_version: SCHEMA_VERSION,
        committed_at: now,
        command_id: backup.command_id.clone(),
        index_object,
        quarantined_for: reason.as_ref().map(QuarantineReason::to_string),
        index,
    };
    if !write_manifest(context, application, state, &manifest).await? {
        // Another delivery of the same event was faster.
        let (index, object) = (&manifest.index, &manifest.index_object);
        let earlier = earlier_commit(context, application, index, object).await?;
        return Ok(earlier.unwrap_or(Commit::Repeated));
    }
    if let Some(reason) = reason {
        return Ok(Commit::Quarantined(reason));
    }
    record_unsaved_images(context, backup, &manifest.index);
    measure(context, backup, &manifest.index, now);
    write_state_and_marker(context, application, &manifest.index.backup_id).await;
    Ok(Commit::New)
}

/// Returns the result of an earlier commit of this backup, or `None` if it has no manifest. Writes the state and the
/// marker again, because the process that committed the backup may have ended before it wrote them.
async fn earlier_commit(
    context: &Context,
    application: &ApplicationName,
    index: &Index,
    index_object: &ObjectRecord,
) -> Result<Option<Commit>> {
    let backup = &index.backup_id;
    let Some((state, earlier)) = context.manifests(application).find(backup).await? else {
        return Ok(None);
    };
    if earlier.index_object.sha256 != index_object.sha256 {
        let other = &earlier.index;
        return Err(Error::Refused(format!(
            "the backup {backup} is already committed from the run {} on {}; the run {} on {} stays uncommitted",
            other.run_id, other.node.instance_id, index.run_id, index.node.instance_id
        )));
    }
    if state == BackupState::Quarantined {
        return Ok(Some(Commit::AlreadyQuarantined));
    }
    write_state_and_marker(context, application, backup).await;
    Ok(Some(Commit::Repeated))
}

async fn write_state_and_marker(
    context: &Context,
    application: &ApplicationName,
    backup: &BackupId,
) {
    join!(
        write_state(context, application, backup),
        commit_markers::write(context, application, backup)
    );
}

/// Writes the application's state. The backup is committed even if this fails: every tick writes a missing state again.
async fn write_state(context: &Context, application: &ApplicationName, backup: &BackupId) {
    match state::ensure(&context.aws.ssm, application, backup).await {
        Ok(_) => context.applications_with_state.insert(application.clone()),
        Err(error) => warn!(
            %application,
            backup_id = %backup,
            reason = error.chain(),
            "the application's state was not written; the next tick repairs it"
        ),
    }
}

/// Writes the manifest of a backup. Returns `false` if the backup already has one in this state.
async fn write_manifest(
    context: &Context,
    application: &ApplicationName,
    state: BackupState,
    manifest: &Manifest,
) -> Result<bool> {
    let backup = &manifest.index.backup_id;
    let bytes = serde_json::to_vec_pretty(manifest).map_err(|error| {
        let key = state.manifest(application, backup);
        Error::contract(key, error.to_string())
    })?;
    let created = context
        .manifests(application)
        .create(state, backup, bytes)
        .await?;
    Ok(created != Created::AlreadyThere)
}

/// Records which images the node could not save. The backup is committed, because its data are complete.
fn record_unsaved_images(context: &Context, backup: &CompleteBackup<'_>, index: &Index) {
    if index.unsaved_images.is_empty() {
        return;
    }
    let message = "the backup lacks images that [images] in the node's settings asks for";
    let reason = index.unsaved_images.join("; ");
    let subject = backup.subject();
    failure::record(context, subject, Kind::ImageUnsaved, message, &reason);
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a metric is a floating-point number"
)]
fn measure(context: &Context, backup: &CompleteBackup<'_>, index: &Index, now: OffsetDateTime) {
    let values = [
        (
            Metric::BackupAge,
            (now - index.backup_id.time()).as_seconds_f64(),
        ),
        (Metric::BackupBytes, index.bytes() as f64),
        (Metric::BackupSeconds, backup.report.seconds),
        (Metric::BackupRows, index.rows() as f64),
    ];
    let (namespace, application) = (&context.config.metric_namespace, backup.node.application);
    metrics::measured(namespace, now, application, &values);
}
