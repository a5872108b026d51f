//! The manifests of backups in S3. No other code reads or writes them.

use aws_sdk_s3::Client;
use futures_util::try_join;

use super::s3::{self, Created};
use crate::error::{Error, Result};
use crate::id::{ApplicationName, BackupId};
use crate::layout::BackupState;
use crate::manifest::{MOST_MANIFEST_BYTES, Manifest};

/// An application's manifests in one bucket.
#[derive(Debug, Clone, Copy)]
pub struct Manifests<'a> {
    /// The client.
    pub client: &'a Client,
    /// The bucket of backups.
    pub bucket: &'a str,
    /// The application.
    pub application: &'a ApplicationName,
}

impl Manifests<'_> {
    /// Returns a backup's manifest in one state, or `None` if it has none there.
    ///
    /// # Errors
    /// [`crate::Error::Contract`] if the manifest cannot be parsed or is another backup's, [`crate::Error::Aws`] if S3
    /// fails.
    pub async fn read(&self, state: BackupState, backup: &BackupId) -> Result<Option<Manifest>> {
        let bytes = self.read_bytes(state, backup).await?;
        bytes
            .map(|bytes| Manifest::parse(&bytes, self.application, backup))
            .transpose()
    }

    /// Returns a backup's manifest in one state, or `None` if it has none there or an invalid one.
    ///
    /// # Errors
    /// [`crate::Error::Aws`] if S3 fails.
    pub async fn read_valid(
        &self,
        state: BackupState,
        backup: &BackupId,
    ) -> Result<Option<Manifest>> {
        match self.read(state, backup).await {
            Err(Error::Contract { .. }) => Ok(None),
            read => read,
        }
    }

    /// Returns the bytes of a backup's manifest in one state, or `None` if it has none there.
    ///
    /// # Errors
    /// [`crate::Error::Aws`] if S3 fails, [`crate::Error::Contract`] if the object is larger than
    /// [`MOST_MANIFEST_BYTES`].
    pub async fn read_bytes(
        &self,
        state: BackupState,
        backup: &BackupId,
    ) -> Result<Option<Vec<u8>>> {
        let key = self.key(state, backup);
        match s3::read(self.client, self.bucket, &key, None, MOST_MANIFEST_BYTES).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if s3::is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns a backup's state and manifest, or `None` if it has no manifest. If it has both a committed and a
    /// quarantined manifest, returns the committed one.
    ///
    /// # Errors
    /// Those of [`Manifests::read`].
    pub async fn find(&self, backup: &BackupId) -> Result<Option<(BackupState, Manifest)>> {
        for state in [BackupState::Committed, BackupState::Quarantined] {
            if let Some(manifest) = self.read(state, backup).await? {
                return Ok(Some((state, manifest)));
            }
        }
        Ok(None)
    }

    /// Returns a backup's state, or `None` if it has no manifest. Reads no manifest.
    ///
    /// # Errors
    /// [`crate::Error::Aws`] if S3 fails.
    pub async fn locate(&self, backup: &BackupId) -> Result<Option<BackupState>> {
        let committed = self.key(BackupState::Committed, backup);
        let quarantined = self.key(BackupState::Quarantined, backup);
        let (committed, quarantined) = try_join!(
            s3::head(self.client, self.bucket, &committed, None),
            s3::head(self.client, self.bucket, &quarantined, None),
        )?;
        let committed = committed.map(|_| BackupState::Committed);
        Ok(committed.or(quarantined.map(|_| BackupState::Quarantined)))
    }

    /// Writes a backup's manifest in one state, unless it has one there.
    ///
    /// # Errors
    /// [`crate::Error::Aws`] if S3 fails.
    pub async fn create(
        &self,
        state: BackupState,
        backup: &BackupId,
        manifest: Vec<u8>,
    ) -> Result<Created> {
        let key = self.key(state, backup);
        let content_type = "application/json";
        s3::create(self.client, self.bucket, &key, manifest, content_type).await
    }

    /// Deletes a backup's manifest in one state, if it has one there.
    ///
    /// # Errors
    /// [`crate::Error::Aws`] if S3 fails.
    pub async fn delete(&self, state: BackupState, backup: &BackupId) -> Result<()> {
        s3::delete(self.client, self.bucket, &[self.key(state, backup)]).await
    }

    fn key(&self, state: BackupState, backup: &BackupId) -> String {
        state.manifest(self.application, backup)
    }
}
