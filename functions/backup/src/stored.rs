//! What the bucket holds of one backup: its manifest, on whichever state it stands.

use futures_util::try_join;
use shared::aws::s3;
use shared::id::{ApplicationName, BackupId};
use shared::layout::BackupState;
use shared::manifest::{MOST_MANIFEST_BYTES, Manifest};
use shared::{Error, Result};

use crate::function::Function;

/// Reads the manifest of a backup on one state; none where it is not there.
pub(crate) async fn on_shelf(
    function: &Function,
    application: &ApplicationName,
    state: BackupState,
    backup: &BackupId,
) -> Result<Option<Manifest>> {
    let bytes = bytes(function, application, state, backup).await?;
    bytes
        .map(|bytes| Manifest::parse(&bytes, application, backup))
        .transpose()
}

/// Reads the manifest of a backup as it is; none where it is not there.
pub(crate) async fn bytes(
    function: &Function,
    application: &ApplicationName,
    state: BackupState,
    backup: &BackupId,
) -> Result<Option<Vec<u8>>> {
    let (s3, bucket) = (&function.aws.s3, &function.config.bucket);
    let key = state.manifest(application, backup);
    match s3::read(s3, bucket, &key, None, MOST_MANIFEST_BYTES).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if s3::is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the manifest of a backup, whether it is committed or kept aside.
pub(crate) async fn anywhere(
    function: &Function,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<Option<(BackupState, Manifest)>> {
    for state in [BackupState::Committed, BackupState::Quarantined] {
        if let Some(manifest) = on_shelf(function, application, state, backup).await? {
            return Ok(Some((state, manifest)));
        }
    }
    Ok(None)
}

/// Tells whether a backup has a manifest, so that what was asked for is done.
pub(crate) async fn is_settled(
    function: &Function,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<bool> {
    Ok(state(function, application, backup).await?.is_some())
}

/// Returns the state on which a backup has its manifest, if it has one.
pub(crate) async fn state(
    function: &Function,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<Option<BackupState>> {
    let (s3, bucket) = (&function.aws.s3, &function.config.bucket);
    let key = |state: BackupState| state.manifest(application, backup);
    let (committed, kept_aside) = (key(BackupState::Committed), key(BackupState::Quarantined));
    let (committed, kept_aside) = try_join!(
        s3::head(s3, bucket, &committed, None),
        s3::head(s3, bucket, &kept_aside, None),
    )?;
    let committed = committed.map(|_| BackupState::Committed);
    Ok(committed.or(kept_aside.map(|_| BackupState::Quarantined)))
}

/// Says that an application has no such backup.
pub(crate) fn unknown(application: &ApplicationName, backup: &BackupId) -> Error {
    Error::Refused(format!(
        "the application {application} has no backup {backup}: list-backups names those that it has"
    ))
}

/// Says that an application has no such backup under quarantine.
pub(crate) fn unknown_in_quarantine(application: &ApplicationName, backup: &BackupId) -> Error {
    Error::Refused(format!(
        "the application {application} has no backup {backup} under quarantine: list-backups names those that it has"
    ))
}
