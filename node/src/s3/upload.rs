//! One streaming writer into S3: memory bounded, parts that grow, nothing left behind by a failure.
//!
//! Every object carries our own CRC-64/NVME of the whole, which S3 verifies before the object exists, and is
//! created only if there is none of its name.

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use crc_fast::CrcAlgorithm;
use shared::aws::failed;
use shared::checksum::Digests;
use shared::id::Crc64;
use shared::manifest::ObjectRecord;
use shared::report::ExitCode;
use tokio::task::JoinSet;

use crate::agent::context::Context;
use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::watchdog::Progress;
use crate::s3::open_uploads::{OpenUpload, OpenUploads};

const MIB: u64 = 1024 * 1024;

/// The largest object that is put in one request, and the size of the first parts.
const SMALLEST_PART: u64 = 8 * MIB;

/// Parts that have the smallest size: 8 GiB.
const SMALL_PARTS: u32 = 1_024;

/// By how much each part after those exceeds the one before.
const GROWTH: u64 = 132 * 1024;

/// The most parts of one object.
const MOST_PARTS: u32 = 10_000;

/// The most bytes on their way at once, as long as one part is not larger by itself.
const MOST_IN_FLIGHT: u64 = 32 * MIB;

/// Returns the size of the part with this number, from 1 on.
///
/// 10,000 parts hold more than 5 TiB. Buffers are bounded by 40 MiB for the first 8 GiB (32 MiB on their way and one
/// part being filled), by 64 MiB for the first 11 GiB, and by two parts from there on: 0.3 GiB at 100 GiB, 1 GiB at
/// 1 TiB. What counts are compressed bytes.
fn part_size(number: u32) -> u64 {
    SMALLEST_PART + GROWTH * u64::from(number.saturating_sub(SMALL_PARTS))
}

/// An object being written.
#[derive(Debug)]
pub(crate) struct Upload {
    client: Client,
    bucket: String,
    key: String,
    progress: Progress,
    open: OpenUploads,
    buffer: BytesMut,
    multipart: Option<Multipart>,
}

/// The parts of an object that is too large for one request.
#[derive(Debug)]
struct Multipart {
    id: String,
    /// Parts begun, which is the number of the newest one.
    begun: u32,
    in_flight: u64,
    sending: JoinSet<Result<(CompletedPart, u64)>>,
    sent: Vec<CompletedPart>,
}

impl Upload {
    /// Begins an object; nothing is sent yet.
    pub(crate) fn new(context: &Context, key: String) -> Self {
        Self {
            client: context.s3.clone(),
            bucket: context.settings.bucket.clone(),
            key,
            progress: context.progress.clone(),
            open: context.uploads.clone(),
            buffer: BytesMut::new(),
            multipart: None,
        }
    }

    /// Takes the next bytes, and waits as long as too many are on their way.
    pub(crate) async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let begun = self
                .multipart
                .as_ref()
                .map_or(0, |multipart| multipart.begun);
            let size = part_size(begun + 1);
            let room = size.saturating_sub(self.buffer.len() as u64);
            if room == 0 {
                // More is to come, so this is not the last part.
                self.send_part().await?;
                continue;
            }
            let length = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(length);
            if self.buffer.len() + now.len() > self.buffer.capacity() {
                // Doubling for a first part, so that a small object costs little; never beyond the part.
                let wanted = match &self.multipart {
                    Some(_) => size,
                    None => (2 * self.buffer.capacity() as u64).clamp(256 * 1024, size),
                };
                let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
                let wanted = wanted.max(self.buffer.len() + now.len());
                self.buffer.reserve(wanted - self.buffer.len());
            }
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Makes the object exist, if its bytes are the ones that `digests` were made of.
    pub(crate) async fn finish(mut self, digests: &Digests) -> Result<ObjectRecord> {
        if digests.size == 0 {
            let message = format!("nothing was written to {}", self.key);
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
            key: self.key,
            version_id,
            size: digests.size,
            sha256: digests.sha256.clone(),
            crc64: digests.crc64.clone(),
        })
    }

    /// Gives the object up.
    pub(crate) async fn abort(self) {
        if let Some(multipart) = self.multipart {
            // Parts still on their way end here.
            drop(multipart.sending);
            self.open.abort(&multipart.id).await;
        }
    }

    async fn put(&mut self, digests: &Digests) -> Result<Option<String>> {
        let sent = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(&self.key)
            .if_none_match("*")
            .checksum_crc64_nvme(digests.crc64.as_str())
            .body(ByteStream::from(self.buffer.split().freeze()))
            .send()
            .await;
        match sent {
            Ok(output) => self.confirm(output.e_tag.as_deref(), output.version_id),
            Err(error) => self.settle(failed("s3:PutObject")(error), digests).await,
        }
    }

    async fn send_part(&mut self) -> Result<()> {
        let body = std::mem::take(&mut self.buffer).freeze();
        let multipart = match &mut self.multipart {
            Some(multipart) => multipart,
            none => none.insert(Multipart {
                id: begin(&self.client, &self.bucket, &self.key, &self.open).await?,
                begun: 0,
                in_flight: 0,
                sending: JoinSet::new(),
                sent: Vec::new(),
            }),
        };
        if multipart.begun == MOST_PARTS {
            let message = format!("{} is larger than the 5 TiB that S3 takes", self.key);
            return Err(Failure::new(ExitCode::Upload, message));
        }
        let size = body.len() as u64;
        while multipart.in_flight > 0 && multipart.in_flight + size > MOST_IN_FLIGHT {
            multipart.one_sent(&self.progress).await?;
        }
        multipart.begun += 1;
        multipart.in_flight += size;
        let part = Part {
            client: self.client.clone(),
            bucket: self.bucket.clone(),
            key: self.key.clone(),
            upload: multipart.id.clone(),
            number: multipart.begun,
            body,
        };
        multipart.sending.spawn(part.send());
        Ok(())
    }

    async fn complete(&mut self, digests: &Digests) -> Result<Option<String>> {
        let Some(multipart) = &mut self.multipart else {
            return Ok(None);
        };
        while multipart.in_flight > 0 {
            multipart.one_sent(&self.progress).await?;
        }
        multipart.sent.sort_by_key(CompletedPart::part_number);
        let id = multipart.id.clone();
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(std::mem::take(&mut multipart.sent)))
            .build();
        let sent = self
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(&self.key)
            .upload_id(&id)
            .if_none_match("*")
            .checksum_crc64_nvme(digests.crc64.as_str())
            .checksum_type(ChecksumType::FullObject)
            .mpu_object_size(i64::try_from(digests.size).unwrap_or(i64::MAX))
            .multipart_upload(parts)
            .send()
            .await;
        let version = match sent {
            Ok(output) => self.confirm(output.e_tag.as_deref(), output.version_id)?,
            Err(error) => {
                let error = failed("s3:CompleteMultipartUpload")(error);
                self.settle(error, digests).await?
            }
        };
        self.open.forget(&id);
        Ok(version)
    }

    /// An answer without an `ETag` is one of a proxy or of a defect: the object may not exist.
    fn confirm(&self, etag: Option<&str>, version: Option<String>) -> Result<Option<String>> {
        if etag.is_none_or(str::is_empty) {
            let message = format!("S3 acknowledged {} without an ETag", self.key);
            return Err(Failure::new(ExitCode::Upload, message));
        }
        Ok(version)
    }

    /// Decides what a refusal means: a request that the SDK repeated is refused by its own first success.
    async fn settle(&self, error: shared::Error, digests: &Digests) -> Result<Option<String>> {
        let code = error.aws_code();
        if !matches!(
            code,
            Some("PreconditionFailed" | "Http412" | "NoSuchUpload")
        ) {
            return Err(error).or_fail(ExitCode::Upload, || format!("upload {}", self.key));
        }
        let there = shared::aws::s3::head(&self.client, &self.bucket, &self.key, None).await;
        match there {
            Ok(Some(head)) if is_ours(&head, digests) => Ok(head.version_id),
            Ok(Some(_)) => Err(error).or_fail(ExitCode::Upload, || {
                format!(
                    "{} exists already, with other bytes, and is never overwritten",
                    self.key
                )
            }),
            _ => Err(error).or_fail(ExitCode::Upload, || format!("upload {}", self.key)),
        }
    }
}

fn is_ours(head: &shared::aws::s3::Head, digests: &Digests) -> bool {
    head.size == digests.size && head.crc64.as_ref() == Some(&digests.crc64)
}

impl Multipart {
    /// Waits for one part, whichever comes first.
    async fn one_sent(&mut self, progress: &Progress) -> Result<()> {
        if let Some(joined) = self.sending.join_next().await {
            let (part, size) = joined.or_fail(ExitCode::Internal, || "send a part")??;
            self.in_flight -= size;
            self.sent.push(part);
            progress.touch();
        }
        Ok(())
    }
}

/// Begins a multipart upload in a task of its own: were this future dropped, S3 could have made an upload whose
/// id nobody knows.
async fn begin(client: &Client, bucket: &str, key: &str, open: &OpenUploads) -> Result<String> {
    let upload = OpenUpload {
        client: client.clone(),
        bucket: bucket.to_owned(),
        key: key.to_owned(),
    };
    let open = open.clone();
    let begun = tokio::spawn(async move {
        let _beginning = open.beginning().await;
        let output = upload
            .client
            .create_multipart_upload()
            .bucket(&upload.bucket)
            .key(&upload.key)
            .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
            .checksum_type(ChecksumType::FullObject)
            .send()
            .await
            .map_err(failed("s3:CreateMultipartUpload"))
            .or_fail(ExitCode::Upload, || format!("upload {}", upload.key))?;
        let id = output.upload_id.unwrap_or_default();
        if id.is_empty() {
            let message = format!("S3 began the upload of {} without an id", upload.key);
            return Err(Failure::new(ExitCode::Upload, message));
        }
        open.remember(id.clone(), upload);
        Ok(id)
    });
    begun
        .await
        .or_fail(ExitCode::Internal, || "begin an upload")?
}

/// One part of an object.
struct Part {
    client: Client,
    bucket: String,
    key: String,
    upload: String,
    number: u32,
    body: Bytes,
}

impl Part {
    async fn send(self) -> Result<(CompletedPart, u64)> {
        let size = self.body.len() as u64;
        let crc64 = Crc64::of(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &self.body));
        let doing = || format!("upload part {} of {}", self.number, self.key);
        // At most 10,000.
        let number = i32::try_from(self.number).unwrap_or(i32::MAX);
        let request = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(&self.key)
            .upload_id(&self.upload)
            .part_number(number)
            .checksum_crc64_nvme(crc64.as_str())
            .body(ByteStream::from(self.body.clone()))
            .send();
        let output = request
            .await
            .map_err(failed("s3:UploadPart"))
            .or_fail(ExitCode::Upload, doing)?;
        let Some(etag) = output.e_tag else {
            let message = format!(
                "S3 acknowledged part {number} of {} without an ETag",
                self.key
            );
            return Err(Failure::new(ExitCode::Upload, message));
        };
        let part = CompletedPart::builder()
            .part_number(number)
            .e_tag(etag)
            .checksum_crc64_nvme(crc64.as_str())
            .build();
        Ok((part, size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1024 * MIB;

    #[test]
    fn ten_thousand_parts_hold_five_tebibytes() {
        let all: u64 = (1..=MOST_PARTS).map(part_size).sum();
        assert!(all >= 5 * 1024 * GIB, "{all}");
    }

    #[test]
    fn buffers_stay_within_their_documented_bounds() {
        let mut before = 0;
        for number in 1..=MOST_PARTS {
            let size = part_size(number);
            let buffers = size + MOST_IN_FLIGHT.max(size);
            let bound = match before / GIB {
                0..8 => 40 * MIB,
                8..11 => 64 * MIB,
                11..100 => 320 * MIB,
                100..1024 => GIB + 16 * MIB,
                _ => 3 * GIB,
            };
            assert!(buffers <= bound, "part {number}: {buffers} after {before}");
            before += size;
        }
    }

    proptest! {
        #[test]
        fn every_part_is_one_that_s3_accepts(number in 1..=MOST_PARTS) {
            let size = part_size(number);
            prop_assert!((5 * MIB..=5 * GIB).contains(&size));
            prop_assert!(size >= part_size(number.saturating_sub(1).max(1)));
        }
    }
}
