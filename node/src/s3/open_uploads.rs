//! The multipart uploads that must not outlive the agent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_s3::Client;
use shared::aws::failed;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

/// How long ending one upload may take: the agent is about to exit.
const ABORT_LIMIT: Duration = Duration::from_secs(15);

/// Where an upload goes.
#[derive(Debug)]
pub(crate) struct OpenUpload {
    pub(crate) client: Client,
    pub(crate) bucket: String,
    pub(crate) key: String,
}

/// The uploads of this process that are neither completed nor aborted.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenUploads {
    open: Arc<Mutex<HashMap<String, OpenUpload>>>,
    beginning: Arc<RwLock<()>>,
}

impl OpenUploads {
    /// Announces an upload whose id is not known yet, until the guard is dropped.
    pub(crate) async fn beginning(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.beginning).read_owned().await
    }

    /// Notes a begun upload.
    pub(crate) fn remember(&self, id: String, upload: OpenUpload) {
        self.open().insert(id, upload);
    }

    /// Notes that an upload was completed.
    pub(crate) fn forget(&self, id: &str) {
        self.open().remove(id);
    }

    /// Ends one upload. A failure is only logged: the bucket's lifecycle rule removes what is left.
    pub(crate) async fn abort(&self, id: &str) {
        let Some(upload) = self.open().remove(id) else {
            return;
        };
        let request = upload
            .client
            .abort_multipart_upload()
            .bucket(&upload.bucket)
            .key(&upload.key)
            .upload_id(id)
            .send();
        match tokio::time::timeout(ABORT_LIMIT, request).await {
            Ok(Ok(_)) => tracing::info!(key = upload.key, "upload aborted"),
            Ok(Err(error)) => {
                let error = failed("s3:AbortMultipartUpload")(error);
                tracing::warn!(
                    key = upload.key,
                    error = error.chain(),
                    "upload not aborted"
                );
            }
            Err(_) => tracing::warn!(key = upload.key, "upload not aborted in time"),
        }
    }

    /// Ends every upload of this process, those included that are just beginning.
    pub(crate) async fn abort_all(&self) {
        if tokio::time::timeout(ABORT_LIMIT, self.beginning.write())
            .await
            .is_err()
        {
            tracing::warn!("an upload that was just beginning may be left");
        }
        let ids: Vec<String> = self.open().keys().cloned().collect();
        for id in ids {
            self.abort(&id).await;
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, OpenUpload>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
