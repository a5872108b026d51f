//! One pass of retention over an application's backups: its facts, and its calls to S3.

use std::collections::BTreeSet;

use shared::Result;
use shared::aws::{catalog, s3};
use shared::function::context::Context;
use shared::id::{ApplicationName, BackupId};
use shared::layout::BackupState;
use time::OffsetDateTime;

/// One pass over an application's backups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) context: &'a Context,
    pub(super) application: &'a ApplicationName,
    pub(super) now: OffsetDateTime,
}

impl Pass<'_> {
    pub(super) async fn all(&self, state: BackupState) -> Result<BTreeSet<BackupId>> {
        let (client, bucket) = (&self.context.aws.s3, &self.context.config.bucket);
        catalog::all(client, bucket, self.application, state).await
    }

    pub(super) async fn pinned(&self) -> Result<BTreeSet<BackupId>> {
        let (client, bucket) = (&self.context.aws.s3, &self.context.config.bucket);
        catalog::pinned(client, bucket, self.application).await
    }

    pub(super) async fn objects_of(&self, backup: &BackupId) -> Result<Vec<String>> {
        let (client, bucket) = (&self.context.aws.s3, &self.context.config.bucket);
        catalog::objects_of(client, bucket, self.application, backup).await
    }

    pub(super) async fn delete(&self, keys: &[String]) -> Result<()> {
        let (client, bucket) = (&self.context.aws.s3, &self.context.config.bucket);
        s3::delete(client, bucket, keys).await
    }
}
