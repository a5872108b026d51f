//! The requests that pin a backup, so that retention never deletes it, and unpin it.
//!
//! Retention may run at the same moment. It reads the pins again after it has deleted a manifest, so a pin that was
//! written before a manifest is read keeps the backup.

use shared::Result;
use shared::aws::s3::{self, Created};
use shared::function::context::Context;
use shared::id::{ApplicationName, BackupId};
use shared::layout;

use super::reply::{done, unknown};
use crate::answer::Answer;

/// Pins a backup.
pub(super) async fn pin(
    context: &Context,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<Answer> {
    let is_new = write_pin(context, application, backup).await?;
    // Check the manifest after the pin is written: then retention cannot delete a manifest that exists now.
    let manifest = context.manifests(application).locate(backup).await?;
    if manifest.is_none() {
        if is_new {
            delete_pin(context, application, backup).await?;
        }
        return Err(unknown(application, backup));
    }
    let message = "the backup is pinned: retention does not delete it until it is unpinned";
    Ok(done(application, backup, "pin", message))
}

/// Unpins a backup.
pub(super) async fn unpin(
    context: &Context,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<Answer> {
    delete_pin(context, application, backup).await?;
    let message = "the backup is unpinned: retention deletes it at the age of others";
    Ok(done(application, backup, "unpin", message))
}

/// Writes the pin of a backup. Returns `false` if it was there before.
pub(super) async fn write_pin(
    context: &Context,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<bool> {
    let (client, bucket) = (&context.aws.s3, &context.config.bucket);
    let key = layout::pin(application, backup);
    let created = s3::create(client, bucket, &key, Vec::new(), "text/plain").await?;
    Ok(created != Created::AlreadyThere)
}

/// Deletes the pin of a backup, if there is one.
pub(super) async fn delete_pin(
    context: &Context,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<()> {
    let (client, bucket) = (&context.aws.s3, &context.config.bucket);
    s3::delete(client, bucket, &[layout::pin(application, backup)]).await
}
