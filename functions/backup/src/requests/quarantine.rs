//! The requests that accept a quarantined backup, or reject it.

use shared::function::context::Context;
use shared::id::{ApplicationName, BackupId};
use shared::layout::BackupState;
use shared::manifest::Manifest;
use shared::{Error, Result};

use super::pins::{delete_pin, write_pin};
use super::reply::{done, unknown};
use crate::answer::Answer;
use crate::{commit_markers, objects};

/// Moves a quarantined backup to the committed ones. Meanwhile a pin protects it from retention.
pub(crate) async fn accept(
    context: &Context,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<Answer> {
    let is_new = write_pin(context, application, backup).await?;
    let accepted = accept_pinned(context, application, backup).await;
    if is_new {
        delete_pin(context, application, backup).await?;
    }
    accepted
}

async fn accept_pinned(
    context: &Context,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<Answer> {
    let manifests = context.manifests(application);
    let bytes = manifests.read_bytes(BackupState::Quarantined, backup);
    let Some(bytes) = bytes.await? else {
        return match manifests.read(BackupState::Committed, backup).await? {
            Some(_) => {
                let message = "the backup is committed already";
                Ok(done(application, backup, "already-committed", message))
            }
            None => Err(unknown(application, backup)),
        };
    };
    let manifest = Manifest::parse(&bytes, application, backup)?;
    let all_objects = manifest.index.needed().chain([&manifest.index_object]);
    objects::check(context, all_objects).await?;
    manifests
        .create(BackupState::Committed, backup, bytes)
        .await?;
    commit_markers::write(context, application, backup).await;
    manifests.delete(BackupState::Quarantined, backup).await?;
    let message = "the backup is accepted: a restore may use it from now on";
    Ok(done(application, backup, "accept", message))
}

/// Deletes the manifest of a quarantined backup. Retention deletes its objects later.
pub(crate) async fn reject(
    context: &Context,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<Answer> {
    let manifests = context.manifests(application);
    let manifest = manifests.read_bytes(BackupState::Quarantined, backup);
    if manifest.await?.is_none() {
        return Err(Error::Refused(format!(
            "the application {application} has no backup {backup} under quarantine; send list-backups to see those it has"
        )));
    }
    manifests.delete(BackupState::Quarantined, backup).await?;
    let message = "the backup is rejected: it does not exist any more";
    Ok(done(application, backup, "reject", message))
}
