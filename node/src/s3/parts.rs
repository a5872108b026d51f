//! The parts of a multipart upload: their sizes, and how they are sent side by side in bounded memory.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedPart};
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use shared::aws::failed;
use shared::exit_code::ExitCode;
use shared::id::Crc64;
use tokio::task::JoinSet;

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::watchdog::Progress;
use crate::s3::open_uploads::{Destination, OpenUploads};

const MIB: u64 = 1024 * 1024;

/// The size of the first parts, and the largest object that is sent in one request.
const SMALLEST_PART: u64 = 8 * MIB;

/// The number of parts that have the smallest size: 8 GiB.
const SMALL_PARTS: u32 = 1_024;

/// The bytes by which each later part is larger than the one before.
const GROWTH: u64 = 132 * 1024;

/// The most parts that S3 accepts for one object.
const MOST_PARTS: u32 = 10_000;

/// The most bytes that are sent at the same time, unless one part alone is larger.
const MOST_IN_FLIGHT: u64 = 32 * MIB;

/// Returns the size in bytes of the part with this number, which counts from 1.
///
/// 10,000 parts hold more than 5 TiB. Buffers are bounded by 40 MiB for the first 8 GiB (32 MiB being sent, and one
/// part being filled), by 64 MiB for the first 11 GiB, and by two parts after that: 0.3 GiB at 100 GiB, 1 GiB at 1 TiB.
/// These are compressed bytes.
fn part_size(number: u32) -> u64 {
    SMALLEST_PART + GROWTH * u64::from(number.saturating_sub(SMALL_PARTS))
}

/// Returns the size in bytes of the first part.
pub(super) fn first_size() -> u64 {
    part_size(1)
}

/// The parts of an object that is too large for one request.
#[derive(Debug)]
pub(super) struct Multipart {
    destination: Destination,
    id: String,
    /// The number of parts that are sent or being sent.
    begun: u32,
    in_flight: u64,
    sending: JoinSet<Result<(CompletedPart, u64)>>,
    sent: Vec<CompletedPart>,
}

impl Multipart {
    /// Starts a multipart upload.
    ///
    /// The request runs in a task of its own: if this future is dropped, S3 may still start an upload, which must be
    /// recorded to be aborted.
    pub(super) async fn start(destination: Destination, open: &OpenUploads) -> Result<Self> {
        let (target, open) = (destination.clone(), open.clone());
        let starting = tokio::spawn(async move {
            let _starting = open.starting().await;
            let id = create(&target).await?;
            open.add(id.clone(), target);
            Result::Ok(id)
        });
        let id = starting.await.or_fail(
            ExitCode::Internal,
            || "cannot run the task that starts an upload",
        )??;
        Ok(Self {
            destination,
            id,
            begun: 0,
            in_flight: 0,
            sending: JoinSet::new(),
            sent: Vec::new(),
        })
    }

    /// Returns the upload's id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Returns the size in bytes of the next part.
    pub(super) fn next_size(&self) -> u64 {
        part_size(self.begun + 1)
    }

    /// Begins to send a part, after others have made room for it.
    pub(super) async fn send(&mut self, body: Bytes, progress: &Progress) -> Result<()> {
        if self.begun == MOST_PARTS {
            let message = format!(
                "{} is larger than 5 TiB, the most that S3 accepts; split the database",
                self.destination.key
            );
            return Err(Failure::new(ExitCode::Upload, message));
        }
        let size = body.len() as u64;
        while self.in_flight > 0 && self.in_flight + size > MOST_IN_FLIGHT {
            self.wait_for_one(progress).await?;
        }
        self.begun += 1;
        self.in_flight += size;
        let (destination, id) = (self.destination.clone(), self.id.clone());
        self.sending
            .spawn(send_part(destination, id, self.begun, body));
        Ok(())
    }

    /// Waits until all parts are sent, and returns them in the order of their numbers.
    pub(super) async fn finish(&mut self, progress: &Progress) -> Result<Vec<CompletedPart>> {
        while self.in_flight > 0 {
            self.wait_for_one(progress).await?;
        }
        self.sent.sort_by_key(CompletedPart::part_number);
        Ok(std::mem::take(&mut self.sent))
    }

    async fn wait_for_one(&mut self, progress: &Progress) -> Result<()> {
        if let Some(joined) = self.sending.join_next().await {
            let (part, size) = joined.or_fail(
                ExitCode::Internal,
                || "cannot run the task that sends a part",
            )??;
            self.in_flight -= size;
            self.sent.push(part);
            progress.touch();
        }
        Ok(())
    }
}

async fn create(destination: &Destination) -> Result<String> {
    let key = &destination.key;
    let output = destination
        .client
        .create_multipart_upload()
        .bucket(&destination.bucket)
        .key(key)
        .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
        .checksum_type(ChecksumType::FullObject)
        .send()
        .await
        .map_err(failed("s3:CreateMultipartUpload"))
        .or_fail(ExitCode::Upload, || format!("cannot upload {key}"))?;
    let id = output.upload_id.unwrap_or_default();
    if id.is_empty() {
        let message = format!("cannot upload {key}: S3 started the upload without an id");
        return Err(Failure::new(ExitCode::Upload, message));
    }
    Ok(id)
}

async fn send_part(
    destination: Destination,
    upload: String,
    number: u32,
    body: Bytes,
) -> Result<(CompletedPart, u64)> {
    let size = body.len() as u64;
    let crc64 = Crc64::of(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &body));
    let Destination {
        client,
        bucket,
        key,
    } = destination;
    let doing = || format!("cannot upload part {number} of {key}");
    // At most 10,000.
    let signed = i32::try_from(number).unwrap_or(i32::MAX);
    let output = client
        .upload_part()
        .bucket(bucket)
        .key(&key)
        .upload_id(upload)
        .part_number(signed)
        .checksum_crc64_nvme(crc64.as_str())
        .body(ByteStream::from(body))
        .send()
        .await
        .map_err(failed("s3:UploadPart"))
        .or_fail(ExitCode::Upload, doing)?;
    let Some(etag) = output.e_tag else {
        let message = format!("{}: S3 acknowledged it without an ETag", doing());
        return Err(Failure::new(ExitCode::Upload, message));
    };
    let part = CompletedPart::builder()
        .part_number(signed)
        .e_tag(etag)
        .checksum_crc64_nvme(crc64.as_str())
        .build();
    Ok((part, size))
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
        fn s3_accepts_the_size_of_every_part(number in 1..=MOST_PARTS) {
            let size = part_size(number);
            prop_assert!((5 * MIB..=5 * GIB).contains(&size));
            prop_assert!(size >= part_size(number.saturating_sub(1).max(1)));
        }
    }
}
