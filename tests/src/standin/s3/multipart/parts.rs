//! The parts of an open upload.

use std::time::SystemTime;

use s3s::dto::{
    ETag, ListPartsInput, ListPartsOutput, Part, Timestamp, UploadPartInput, UploadPartOutput,
};
use s3s::{S3Request, S3Result, s3_error};
use serde::{Deserialize, Serialize};
use tokio::fs;

use super::no_such_upload;
use crate::standin::s3::checksums::{Checksums, checksums_of};
use crate::standin::s3::objects::signed;
use crate::standin::s3::store::{Store, hex, internal};

/// A part, as its record on disk.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredPart {
    pub(super) number: i32,
    pub(super) size: u64,
    uploaded: SystemTime,
    pub(super) md5: Vec<u8>,
    pub(super) checksums: Checksums,
}

impl Store {
    /// Stores one part. A later part with the same number replaces it.
    pub(in crate::standin::s3) async fn put_part(
        &self,
        mut request: S3Request<UploadPartInput>,
    ) -> S3Result<UploadPartOutput> {
        let body = request.input.body.take();
        let input = &request.input;
        let upload = self.upload(&input.bucket, &input.key, &input.upload_id)?;
        if !(1..=10_000).contains(&input.part_number) {
            return Err(s3_error!(
                InvalidArgument,
                "Part number must be an integer between 1 and 10000, inclusive"
            ));
        }
        let sent = checksums_of!(input);
        let md5 = input.content_md5.as_deref();
        let (staged, checksums) = self.receive(&request, body, sent, md5).await?;
        if let Some(algorithm) = &upload.algorithm
            && checksums.of(algorithm).is_none()
        {
            fs::remove_file(&staged.path).await.map_err(internal)?;
            let got = checksums.algorithms().join(" ").to_lowercase();
            let expected = algorithm.to_lowercase();
            return Err(s3_error!(
                InvalidRequest,
                "Checksum Type mismatch occurred, expected checksum Type: {expected}, actual checksum Type: {got}"
            ));
        }
        let part = StoredPart {
            number: input.part_number,
            size: staged.size,
            uploaded: SystemTime::now(),
            md5: staged.md5,
            checksums: checksums.clone(),
        };
        let directory = self.upload_directory(&upload.id);
        let bytes = serde_json::to_vec(&part).map_err(internal)?;
        let moved = fs::rename(
            &staged.path,
            directory.join(format!("{}.part", part.number)),
        )
        .await;
        moved.map_err(|_| no_such_upload())?;
        std::fs::write(directory.join(format!("{}.json", part.number)), bytes).map_err(internal)?;
        Ok(UploadPartOutput {
            e_tag: Some(ETag::Strong(hex(&part.md5))),
            checksum_crc32: checksums.crc32,
            checksum_crc32c: checksums.crc32c,
            checksum_crc64nvme: checksums.crc64nvme,
            checksum_sha1: checksums.sha1,
            checksum_sha256: checksums.sha256,
            ..Default::default()
        })
    }

    /// Reads the records of an upload's parts, sorted by number.
    pub(super) fn parts(&self, id: &str) -> S3Result<Vec<StoredPart>> {
        let mut parts: Vec<StoredPart> = Vec::new();
        for entry in std::fs::read_dir(self.upload_directory(id)).map_err(internal)? {
            let path = entry.map_err(internal)?.path();
            if path.extension().is_some_and(|ending| ending == "json") {
                let bytes = std::fs::read(path).map_err(internal)?;
                parts.push(serde_json::from_slice(&bytes).map_err(internal)?);
            }
        }
        parts.sort_by_key(|part| part.number);
        Ok(parts)
    }

    /// Returns one page of an upload's parts.
    pub(in crate::standin::s3) fn list_upload_parts(
        &self,
        input: ListPartsInput,
    ) -> S3Result<ListPartsOutput> {
        let upload = self.upload(&input.bucket, &input.key, &input.upload_id)?;
        let after = input.part_number_marker.unwrap_or(0);
        let max = input.max_parts.unwrap_or(1000).clamp(0, 1000);
        let mut parts = self.parts(&upload.id)?;
        parts.retain(|part| part.number > after);
        let wanted = usize::try_from(max).map_err(internal)?;
        let truncated = parts.len() > wanted;
        parts.truncate(wanted);
        let last = parts.last().map(|part| part.number);
        let parts = parts.into_iter().map(|part| {
            Ok(Part {
                e_tag: Some(ETag::Strong(hex(&part.md5))),
                last_modified: Some(Timestamp::from(part.uploaded)),
                part_number: Some(part.number),
                size: Some(signed(part.size)?),
                checksum_crc64nvme: part.checksums.crc64nvme,
                ..Default::default()
            })
        });
        Ok(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            is_truncated: Some(truncated),
            max_parts: Some(max),
            next_part_number_marker: last.filter(|_| truncated),
            parts: Some(parts.collect::<S3Result<_>>()?),
            ..Default::default()
        })
    }
}
