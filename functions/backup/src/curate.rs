//! What an operator decides about single backups: whether one under quarantine is good, and what is kept for ever.
//!
//! Each may meet retention at the same moment. A pin that is there before a manifest is read keeps retention from what
//! the manifest names, and retention looks for pins once more after it has taken a manifest away.

#[cfg(test)]
mod tests;

use shared::Result;
use shared::aws::s3::{self, Created};
use shared::id::{ApplicationName, BackupId};
use shared::layout::{self, BackupState};
use shared::manifest::Manifest;
use tracing::info;

use crate::function::Function;
use crate::outcome::Outcome;
use crate::{commit, commits, stored};

/// Lets a backup that was kept aside take its place among the committed ones.
pub(crate) async fn accept(
    function: &Function,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<Outcome> {
    let pinned_here = put_pin(function, application, backup).await?;
    let accepted = accept_pinned(function, application, backup).await;
    if pinned_here {
        take_pin(function, application, backup).await?;
    }
    Ok(curated(application, backup, accepted?))
}

async fn accept_pinned(
    function: &Function,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<&'static str> {
    let (client, bucket) = (&function.aws.s3, &function.config.bucket);
    let Some(bytes) =
        stored::bytes(function, application, BackupState::Quarantined, backup).await?
    else {
        return match stored::on_shelf(function, application, BackupState::Committed, backup).await?
        {
            Some(_) => Ok("it is committed already"),
            None => Err(stored::unknown(application, backup)),
        };
    };
    let manifest = Manifest::parse(&bytes, application, backup)?;
    let objects = manifest.index.needed().chain([&manifest.index_object]);
    commit::check_objects(function, objects).await?;
    let key = BackupState::Committed.manifest(application, backup);
    s3::create(client, bucket, &key, bytes, "application/json").await?;
    commits::say(function, application, backup).await;
    let aside = BackupState::Quarantined.manifest(application, backup);
    s3::delete(client, bucket, &[aside]).await?;
    Ok("accepted: a restore may choose it from now on")
}

/// Takes a backup out of quarantine for good. Retention collects what it consists of.
pub(crate) async fn reject(
    function: &Function,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<Outcome> {
    let aside = stored::bytes(function, application, BackupState::Quarantined, backup).await?;
    if aside.is_none() {
        return Err(stored::unknown_in_quarantine(application, backup));
    }
    let (client, bucket) = (&function.aws.s3, &function.config.bucket);
    let key = BackupState::Quarantined.manifest(application, backup);
    s3::delete(client, bucket, &[key]).await?;
    Ok(curated(
        application,
        backup,
        "rejected: it is no backup any more",
    ))
}

/// Keeps a backup for ever.
pub(crate) async fn pin(
    function: &Function,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<Outcome> {
    let pinned_here = put_pin(function, application, backup).await?;
    // Looked at with the pin in place: what is there now stays.
    if !stored::is_settled(function, application, backup).await? {
        if pinned_here {
            take_pin(function, application, backup).await?;
        }
        return Err(stored::unknown(application, backup));
    }
    Ok(curated(
        application,
        backup,
        "pinned: it is kept until it is unpinned",
    ))
}

/// Leaves a backup to retention again.
pub(crate) async fn unpin(
    function: &Function,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<Outcome> {
    take_pin(function, application, backup).await?;
    Ok(curated(
        application,
        backup,
        "unpinned: it is kept as long as others of its age",
    ))
}

/// Pins a backup; tells whether it was not pinned before.
async fn put_pin(
    function: &Function,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<bool> {
    let (client, bucket) = (&function.aws.s3, &function.config.bucket);
    let key = layout::pin(application, backup);
    let created = s3::create(client, bucket, &key, Vec::new(), "text/plain").await?;
    Ok(created != Created::AlreadyThere)
}

async fn take_pin(
    function: &Function,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<()> {
    let (client, bucket) = (&function.aws.s3, &function.config.bucket);
    s3::delete(client, bucket, &[layout::pin(application, backup)]).await
}

fn curated(application: &ApplicationName, backup: &BackupId, decision: &str) -> Outcome {
    info!(application = %application, backup_id = %backup, decision, "an operator's word on a backup");
    Outcome::Curated {
        application: application.clone(),
        backup_id: backup.clone(),
        decision: decision.to_owned(),
    }
}
