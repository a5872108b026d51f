//! Combines the parts of an upload into an object.

use std::collections::BTreeMap;
use std::path::PathBuf;

use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{
    ChecksumType, CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart, ETag,
};
use s3s::{S3Error, S3Result, s3_error};
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};

use super::Upload;
use super::parts::StoredPart;
use crate::standin::s3::checksums::{Checksums, checksums_of, composite, hasher};
use crate::standin::s3::objects::{DEFAULT_ALGORITHM, FULL_OBJECT};
use crate::standin::s3::store::{Conditions, NewObject, Store, hex, internal};

/// The least size of every part but the last, in bytes.
const MIN_PART_BYTES: u64 = 5 << 20;

impl Store {
    /// Combines the parts that the request names into an object.
    pub(in crate::standin::s3) async fn complete(
        &self,
        input: CompleteMultipartUploadInput,
    ) -> S3Result<CompleteMultipartUploadOutput> {
        let upload = self.upload(&input.bucket, &input.key, &input.upload_id)?;
        let conditions = Conditions {
            if_none_match: input.if_none_match.as_ref(),
            if_match: input.if_match.as_ref(),
        };
        self.check_conditions(&upload.bucket, &upload.key, conditions)?;
        let named = input
            .multipart_upload
            .as_ref()
            .and_then(|upload| upload.parts.as_deref());
        let parts = named_parts(self.parts(&upload.id)?, named.unwrap_or_default())?;
        let size: u64 = parts.iter().map(|part| part.size).sum();
        if input
            .mpu_object_size
            .is_some_and(|sent| u64::try_from(sent) != Ok(size))
        {
            return Err(s3_error!(
                InvalidRequest,
                "The provided 'x-amz-mp-object-size' header does not match what was computed"
            ));
        }
        let algorithm = upload.algorithm.as_deref().unwrap_or(DEFAULT_ALGORITHM);
        let (staged, whole) = self.concatenate(&upload, &parts, algorithm).await?;
        let (checksums, checksum_type) = if upload.composite {
            let of_parts: Vec<Checksums> =
                parts.iter().map(|part| part.checksums.clone()).collect();
            let value = composite(algorithm, &of_parts)?;
            (Checksums::only(algorithm, value), ChecksumType::COMPOSITE)
        } else {
            (whole, FULL_OBJECT)
        };
        if let Err(error) = checksums_of!(input).verify(&checksums) {
            fs::remove_file(&staged).await.map_err(internal)?;
            return Err(error);
        }
        let object = NewObject {
            bucket: &upload.bucket,
            key: &upload.key,
            e_tag: multipart_e_tag(&parts),
            checksums,
            checksum_type,
            attributes: upload.attributes,
        };
        let record = self.create(&staged, object, conditions).await?;
        fs::remove_dir_all(self.upload_directory(&upload.id))
            .await
            .map_err(internal)?;
        Ok(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(record.e_tag)),
            version_id: Some(record.version_id),
            checksum_crc32: record.checksums.crc32,
            checksum_crc32c: record.checksums.crc32c,
            checksum_crc64nvme: record.checksums.crc64nvme,
            checksum_sha1: record.checksums.sha1,
            checksum_sha256: record.checksums.sha256,
            checksum_type: Some(record.checksum_type.into()),
            ..Default::default()
        })
    }

    /// Joins parts into one staged file. Returns its path and the checksums of the whole.
    async fn concatenate(
        &self,
        upload: &Upload,
        parts: &[StoredPart],
        algorithm: &str,
    ) -> S3Result<(PathBuf, Checksums)> {
        let path = self.staging_path();
        let mut file =
            BufWriter::with_capacity(1 << 20, File::create(&path).await.map_err(internal)?);
        let mut hasher = hasher(&[algorithm]);
        let mut buffer = vec![0; 1 << 18];
        for part in parts {
            let source = self
                .upload_directory(&upload.id)
                .join(format!("{}.part", part.number));
            let mut source = File::open(source).await.map_err(internal)?;
            loop {
                let read = source.read(&mut buffer).await.map_err(internal)?;
                if read == 0 {
                    break;
                }
                hasher.update(&buffer[..read]);
                file.write_all(&buffer[..read]).await.map_err(internal)?;
            }
        }
        file.flush().await.map_err(internal)?;
        Ok((path, Checksums::computed(&hasher.finalize())))
    }
}

/// Returns the stored parts that the client named. Returns an error if a stored part differs from the named one, or if the
/// parts are not in order.
fn named_parts(stored: Vec<StoredPart>, named: &[CompletedPart]) -> S3Result<Vec<StoredPart>> {
    let mut numbered: BTreeMap<i32, StoredPart> =
        stored.into_iter().map(|part| (part.number, part)).collect();
    let mut parts: Vec<StoredPart> = Vec::new();
    for wanted in named {
        let number = wanted.part_number.unwrap_or_default();
        if parts.last().is_some_and(|last| last.number >= number) {
            return Err(s3_error!(
                InvalidPartOrder,
                "The list of parts was not in ascending order."
            ));
        }
        let part = numbered.remove(&number).ok_or_else(invalid_part)?;
        let e_tag = wanted.e_tag.as_ref().map(ETag::value);
        if e_tag != Some(hex(&part.md5).as_str())
            || checksums_of!(wanted).verify(&part.checksums).is_err()
        {
            return Err(invalid_part());
        }
        parts.push(part);
    }
    let Some((_, all_but_last)) = parts.split_last() else {
        return Err(s3_error!(
            MalformedXML,
            "You must specify at least one part"
        ));
    };
    if all_but_last.iter().any(|part| part.size < MIN_PART_BYTES) {
        return Err(s3_error!(
            EntityTooSmall,
            "Your proposed upload is smaller than the minimum allowed size"
        ));
    }
    Ok(parts)
}

/// Returns S3's `ETag` of an object from several parts: the MD5 of the parts' MD5s, and their number.
fn multipart_e_tag(parts: &[StoredPart]) -> String {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(&part.md5);
    }
    format!("{}-{}", hex(md5.finalize().as_ref()), parts.len())
}

fn invalid_part() -> S3Error {
    s3_error!(
        InvalidPart,
        "One or more of the specified parts could not be found. The part may not have been uploaded, or the \
         specified entity tag may not match the part's entity tag."
    )
}
