//! The ranges of one object, fetched at the same time and returned in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use bytes::Bytes;
use shared::aws::{failed, s3};
use shared::exit_code::ExitCode;
use shared::manifest::ObjectRecord;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::unreadable;
use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::s3::Bucket;

/// The most attempts in a row to resume a download that bring no byte.
const FRUITLESS_RESUMPTIONS: u32 = 4;
/// The pause before the first of them; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Bytes that one request asks for.
const RANGE: u64 = 2 * 1024 * 1024;
/// Ranges that are being fetched, or wait for an earlier one. One connection to S3 brings some 100 MB/s, and nothing
/// during the latency of its first byte. Many small ranges hide that latency better than few large ones of as many
/// bytes.
const RANGES_AT_ONCE: usize = 16;

/// An object's ranges.
pub(super) struct Ranges {
    source: Arc<Source>,
    size: u64,
    /// The start of the next range to fetch.
    next_fetched: u64,
    /// The start of the next range to return.
    next_returned: u64,
    /// Ranges that wait for an earlier one, by their starts.
    early: BTreeMap<u64, Vec<Bytes>>,
    fetching: JoinSet<Result<(u64, Vec<Bytes>)>>,
}

impl Ranges {
    /// Prepares the download of an object; nothing is fetched yet.
    pub(super) fn new(bucket: &Bucket, record: &ObjectRecord) -> Self {
        let source = Source {
            bucket: bucket.clone(),
            key: record.key.clone(),
            version: record.version_id.clone(),
        };
        Self {
            source: Arc::new(source),
            size: record.size,
            next_fetched: 0,
            next_returned: 0,
            early: BTreeMap::new(),
            fetching: JoinSet::new(),
        }
    }

    /// Waits for the next range, and returns its chunks; `None` after the last one.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Bytes>>> {
        loop {
            while self.next_fetched < self.size
                && self.fetching.len() + self.early.len() < RANGES_AT_ONCE
            {
                let end = self.size.min(self.next_fetched + RANGE);
                let source = Arc::clone(&self.source);
                self.fetching.spawn(source.fetch(self.next_fetched, end));
                self.next_fetched = end;
            }
            if let Some(range) = self.early.remove(&self.next_returned) {
                self.next_returned = self.size.min(self.next_returned + RANGE);
                return Ok(Some(range));
            }
            let Some(fetched) = self.fetching.join_next().await else {
                return Ok(None);
            };
            let (start, range) = fetched.or_fail(
                ExitCode::Internal,
                || "cannot run the task that fetches a range",
            )??;
            self.early.insert(start, range);
        }
    }
}

/// An object in its bucket.
struct Source {
    bucket: Bucket,
    key: String,
    version: Option<String>,
}

impl Source {
    /// Fetches the bytes from `start` up to `end`. A broken connection is resumed where it broke.
    async fn fetch(self: Arc<Self>, start: u64, end: u64) -> Result<(u64, Vec<Bytes>)> {
        let mut chunks = Vec::new();
        let mut offset = start;
        let mut fruitless = 0;
        while offset < end {
            let before = offset;
            let reason = match self.get(offset, end).await? {
                Ok(mut output) => loop {
                    match output.body.next().await {
                        Some(Ok(chunk)) => {
                            offset += chunk.len() as u64;
                            self.bucket.progress.touch();
                            chunks.push(chunk);
                        }
                        Some(Err(error)) => break error.to_string(),
                        None => break "the connection was closed early".to_owned(),
                    }
                },
                Err(reason) => reason,
            };
            if offset >= end {
                break;
            }
            fruitless = if offset > before { 0 } else { fruitless + 1 };
            if fruitless > FRUITLESS_RESUMPTIONS {
                let message = format!(
                    "cannot read {} after byte {offset}: {reason}; {fruitless} attempts brought no byte",
                    self.key
                );
                return Err(Failure::new(ExitCode::Download, message));
            }
            tracing::warn!(key = self.key, offset, reason, "resuming a download");
            sleep(FIRST_PAUSE * 2_u32.pow(fruitless)).await;
        }
        Ok((start, chunks))
    }

    /// Requests the bytes from `offset` up to `end`. Returns the reason if S3 gave no answer to use, after the client's
    /// own retries; such a request may be repeated.
    async fn get(
        &self,
        offset: u64,
        end: u64,
    ) -> Result<std::result::Result<GetObjectOutput, String>> {
        let operation = "s3:GetObject";
        let answer = self
            .bucket
            .client
            .get_object()
            .bucket(&self.bucket.name)
            .key(&self.key)
            .set_version_id(self.version.clone())
            .range(format!("bytes={offset}-{}", end - 1))
            .send()
            .await;
        match answer.map_err(failed(operation)) {
            // If the answer is not from S3, its bytes prove nothing about the object.
            Ok(output) => match s3::of_s3(operation, output.e_tag()) {
                Ok(()) => Ok(Ok(output)),
                Err(error) => Ok(Err(error.chain())),
            },
            Err(error) if error.retryable() => Ok(Err(error.chain())),
            Err(error) => Err(unreadable(&self.key, error)),
        }
    }
}
