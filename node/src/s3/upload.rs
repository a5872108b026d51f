//! Uploads one object as a stream, in bounded memory. A failed upload leaves nothing in the bucket.
//!
//! S3 verifies the CRC-64/NVME of the whole object before the object exists, and creates it only if no object has its
//! key.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumType, CompletedMultipartUpload};
use bytes::BytesMut;
use shared::aws::{failed, s3};
use shared::checksum::Digests;
use shared::exit_code::ExitCode;
use shared::manifest::ObjectRecord;

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::watchdog::Progress;
use crate::s3::Bucket;
use crate::s3::open_uploads::{Destination, OpenUploads};
use crate::s3::parts::{Multipart, first_size};

/// The smallest capacity of the buffer for a part, in bytes.
const SMALLEST_BUFFER: u64 = 256 * 1024;

/// An object that is being uploaded.
#[derive(Debug)]
pub(crate) struct Upload {
    destination: Destination,
    progress: Progress,
    open: OpenUploads,
    buffer: BytesMut,
    /// `None` until more than the first part is written.
    multipart: Option<Multipart>,
}

impl Upload {
    /// Prepares an upload; nothing is sent yet.
    pub(crate) fn new(bucket: &Bucket, key: String) -> Self {
        Self {
            destination: Destination {
                client: bucket.client.clone(),
                bucket: bucket.name.clone(),
                key,
            },
            progress: bucket.progress.clone(),
            open: bucket.uploads.clone(),
            buffer: BytesMut::new(),
            multipart: None,
        }
    }

    /// Takes the next bytes. Waits while too many bytes are being sent.
    pub(crate) async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let next = self.multipart.as_ref().map(Multipart::next_size);
            let size = next.unwrap_or_else(first_size);
            let room = size.saturating_sub(self.buffer.len() as u64);
            if room == 0 {
                // More bytes follow, so this is not the last part.
                self.send_part().await?;
                continue;
            }
            let length = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(length);
            self.reserve(now.len(), size);
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Makes room for `length` more bytes of a part of `size` bytes. The buffer of the first part doubles, so that a
    /// small object needs little memory; every later part gets its full size at once.
    fn reserve(&mut self, length: usize, size: u64) {
        let needed = self.buffer.len() + length;
        if needed <= self.buffer.capacity() {
            return;
        }
        let wanted = match &self.multipart {
            Some(_) => size,
            None => (2 * self.buffer.capacity() as u64).clamp(SMALLEST_BUFFER, size),
        };
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).max(needed);
        self.buffer.reserve(wanted - self.buffer.len());
    }

    /// Creates the object. `digests` are those of all bytes that were written; S3 compares them with what it received.
    pub(crate) async fn finish(mut self, digests: &Digests) -> Result<ObjectRecord> {
        if digests.size == 0 {
            let message = format!("cannot upload {}: it would be empty", self.destination.key);
            return Err(Failure::new(ExitCode::Upload, message));
        }
        let version_id = if self.multipart.is_some() {
            self.send_part().await?;
            self.complete(digests).await?
        } else {
            self.put(digests).await?
        };
        self.progress.touch();
        Ok(ObjectRecord {
            key: self.destination.key,
            version_id,
            size: digests.size,
            sha256: digests.sha256.clone(),
            crc64: digests.crc64.clone(),
        })
    }

    /// Aborts the upload.
    pub(crate) async fn abort(self) {
        if let Some(multipart) = self.multipart {
            let id = multipart.id().to_owned();
            // Dropping it ends the requests of its parts.
            drop(multipart);
            self.open.abort(&id).await;
        }
    }

    async fn send_part(&mut self) -> Result<()> {
        let body = std::mem::take(&mut self.buffer).freeze();
        let multipart = match &mut self.multipart {
            Some(multipart) => multipart,
            none => none.insert(Multipart::start(self.destination.clone(), &self.open).await?),
        };
        multipart.send(body, &self.progress).await
    }

    /// Sends the whole object in one request; returns its version id.
    async fn put(&mut self, digests: &Digests) -> Result<Option<String>> {
        let sent = self
            .destination
            .client
            .put_object()
            .bucket(&self.destination.bucket)
            .key(&self.destination.key)
            .if_none_match("*")
            .checksum_crc64_nvme(digests.crc64.as_str())
            .body(ByteStream::from(self.buffer.split().freeze()))
            .send()
            .await;
        match sent {
            Ok(output) => self.acknowledged(output.e_tag.as_deref(), output.version_id),
            Err(error) => self.refused(failed("s3:PutObject")(error), digests).await,
        }
    }

    /// Completes a multipart upload; returns the object's version id.
    async fn complete(&mut self, digests: &Digests) -> Result<Option<String>> {
        let Some(multipart) = &mut self.multipart else {
            return Ok(None);
        };
        let parts = multipart.finish(&self.progress).await?;
        let id = multipart.id().to_owned();
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(parts))
            .build();
        let sent = self
            .destination
            .client
            .complete_multipart_upload()
            .bucket(&self.destination.bucket)
            .key(&self.destination.key)
            .upload_id(&id)
            .if_none_match("*")
            .checksum_crc64_nvme(digests.crc64.as_str())
            .checksum_type(ChecksumType::FullObject)
            .mpu_object_size(i64::try_from(digests.size).unwrap_or(i64::MAX))
            .multipart_upload(parts)
            .send()
            .await;
        let version = match sent {
            Ok(output) => self.acknowledged(output.e_tag.as_deref(), output.version_id)?,
            Err(error) => {
                let error = failed("s3:CompleteMultipartUpload")(error);
                self.refused(error, digests).await?
            }
        };
        self.open.remove(&id);
        Ok(version)
    }

    /// Returns the version. An answer without an `ETag` comes from a proxy or is a defect: the object may not exist.
    fn acknowledged(&self, etag: Option<&str>, version: Option<String>) -> Result<Option<String>> {
        if etag.is_none_or(str::is_empty) {
            let message = format!(
                "cannot upload {}: S3 acknowledged it without an ETag",
                self.destination.key
            );
            return Err(Failure::new(ExitCode::Upload, message));
        }
        Ok(version)
    }

    /// Returns the version of the object if it exists with the same bytes. If an answer is lost, the SDK repeats the
    /// request. If the first request had succeeded, S3 refuses the second one.
    async fn refused(&self, error: shared::Error, digests: &Digests) -> Result<Option<String>> {
        let Destination {
            client,
            bucket,
            key,
        } = &self.destination;
        let may_exist = matches!(
            error.aws_code(),
            Some("PreconditionFailed" | "Http412" | "NoSuchUpload")
        );
        if may_exist && let Ok(Some(head)) = s3::head(client, bucket, key, None).await {
            if head.size == digests.size && head.crc64.as_ref() == Some(&digests.crc64) {
                return Ok(head.version_id);
            }
            return Err(error).or_fail(ExitCode::Upload, || {
                format!("cannot upload {key}: it exists with other bytes, and is never overwritten")
            });
        }
        Err(error).or_fail(ExitCode::Upload, || format!("cannot upload {key}"))
    }
}
