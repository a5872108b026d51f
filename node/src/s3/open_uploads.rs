//! The multipart uploads that must be aborted before the agent exits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_s3::Client;
use shared::aws::failed;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio::time::timeout;

/// How long one abort may take: the agent is about to exit.
const ABORT_LIMIT: Duration = Duration::from_secs(15);

/// The object that an upload makes.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    /// The client for the bucket's region.
    pub(crate) client: Client,
    /// The bucket's name.
    pub(crate) bucket: String,
    /// The object's key.
    pub(crate) key: String,
}

/// The uploads of this process that are neither completed nor aborted, by their ids.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenUploads {
    open: Arc<Mutex<HashMap<String, Destination>>>,
    starting: Arc<RwLock<()>>,
}

impl OpenUploads {
    /// Registers an upload that has no id yet. [`Self::abort_all`] waits until the returned guard is dropped.
    pub(crate) async fn starting(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.starting).read_owned().await
    }

    /// Records an upload that S3 has started.
    pub(crate) fn add(&self, id: String, destination: Destination) {
        self.open().insert(id, destination);
    }

    /// Removes an upload that S3 has completed.
    pub(crate) fn remove(&self, id: &str) {
        self.open().remove(id);
    }

    /// Aborts one upload. A failure is only logged: the bucket's lifecycle rule aborts what is left.
    pub(crate) async fn abort(&self, id: &str) {
        let Some(Destination {
            client,
            bucket,
            key,
        }) = self.open().remove(id)
        else {
            return;
        };
        let request = client
            .abort_multipart_upload()
            .bucket(bucket)
            .key(&key)
            .upload_id(id)
            .send();
        let reason = match timeout(ABORT_LIMIT, request).await {
            Ok(Ok(_)) => {
                tracing::info!(key, "aborted an upload");
                return;
            }
            Ok(Err(error)) => failed("s3:AbortMultipartUpload")(error).chain(),
            Err(_) => format!("no answer within {} s", ABORT_LIMIT.as_secs()),
        };
        tracing::warn!(
            key,
            reason,
            "cannot abort an upload; the bucket's lifecycle rule will"
        );
    }

    /// Aborts every upload of this process, including those that are just being started.
    pub(crate) async fn abort_all(&self) {
        if timeout(ABORT_LIMIT, self.starting.write()).await.is_err() {
            tracing::warn!(
                "cannot abort an upload that is just being started; the bucket's lifecycle rule will"
            );
        }
        let ids: Vec<String> = self.open().keys().cloned().collect();
        for id in ids {
            self.abort(&id).await;
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, Destination>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
