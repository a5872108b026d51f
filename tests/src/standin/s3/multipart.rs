//! Multipart uploads: a directory each, with a file and a record per part, until they are completed or aborted.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::SystemTime;

use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{
    ChecksumType, CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart,
    CreateMultipartUploadInput, ETag, ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput,
    MultipartUpload, Part, Timestamp, UploadPartInput, UploadPartOutput,
};
use s3s::{S3Error, S3Request, S3Result, s3_error};
use serde::{Deserialize, Serialize};
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};

use super::checksums::{Checksums, checksums_of, composite, hasher};
use super::objects::{DEFAULT_ALGORITHM, FULL_OBJECT, signed};
use super::store::{Attributes, Conditions, NewObject, Store, hex, internal};

/// The least size of every part but the last, in bytes.
const LEAST_PART: u64 = 5 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Upload {
    bucket: String,
    key: String,
    id: String,
    initiated: SystemTime,
    /// What the client asked for; S3's default where it asked for none.
    algorithm: Option<String>,
    composite: bool,
    attributes: Attributes,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredPart {
    number: i32,
    size: u64,
    uploaded: SystemTime,
    md5: Vec<u8>,
    checksums: Checksums,
}

impl Store {
    fn upload_directory(&self, id: &str) -> PathBuf {
        self.root().join(".uploads").join(id)
    }

    /// Finds an open upload of this very key.
    fn upload(&self, bucket: &str, key: &str, id: &str) -> S3Result<Upload> {
        // Only ids that were given out name a directory.
        let known = uuid::Uuid::try_parse(id).map_err(|_| no_such_upload())?;
        let path = self
            .upload_directory(&known.simple().to_string())
            .join("upload");
        let upload: Upload = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(internal)?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(no_such_upload()),
            Err(error) => return Err(internal(error)),
        };
        if upload.bucket == bucket && upload.key == key {
            return Ok(upload);
        }
        Err(no_such_upload())
    }

    pub(super) fn create_upload(&self, input: CreateMultipartUploadInput) -> S3Result<String> {
        self.check_bucket(&input.bucket)?;
        self.object_path(&input.bucket, &input.key)?;
        let algorithm = input
            .checksum_algorithm
            .map(|name| name.as_str().to_owned());
        let asked = input.checksum_type.as_ref().map(ChecksumType::as_str);
        let crc64 = algorithm.as_deref().unwrap_or(DEFAULT_ALGORITHM) == DEFAULT_ALGORITHM;
        let sha = algorithm
            .as_deref()
            .is_some_and(|name| name.starts_with("SHA"));
        if (crc64 && asked == Some(ChecksumType::COMPOSITE)) || (sha && asked == Some(FULL_OBJECT))
        {
            return Err(s3_error!(
                InvalidRequest,
                "this checksum type cannot be used with this checksum algorithm"
            ));
        }
        let upload = Upload {
            bucket: input.bucket,
            key: input.key,
            id: uuid::Uuid::new_v4().simple().to_string(),
            initiated: SystemTime::now(),
            composite: !crc64 && asked != Some(FULL_OBJECT),
            algorithm,
            attributes: Attributes {
                content_type: input.content_type,
                content_encoding: input.content_encoding,
                metadata: input.metadata.map(|all| all.into_iter().collect()),
            },
        };
        let directory = self.upload_directory(&upload.id);
        std::fs::create_dir(&directory).map_err(internal)?;
        let bytes = serde_json::to_vec(&upload).map_err(internal)?;
        std::fs::write(directory.join("upload"), bytes).map_err(internal)?;
        Ok(upload.id)
    }

    pub(super) async fn put_part(
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

    /// Reads an upload's parts, by number.
    fn parts(&self, id: &str) -> S3Result<Vec<StoredPart>> {
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

    pub(super) fn list_upload_parts(&self, input: ListPartsInput) -> S3Result<ListPartsOutput> {
        let upload = self.upload(&input.bucket, &input.key, &input.upload_id)?;
        let after = input.part_number_marker.unwrap_or(0);
        let most = input.max_parts.unwrap_or(1000).clamp(0, 1000);
        let mut parts = self.parts(&upload.id)?;
        parts.retain(|part| part.number > after);
        let wanted = usize::try_from(most).map_err(internal)?;
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
            max_parts: Some(most),
            next_part_number_marker: last.filter(|_| truncated),
            parts: Some(parts.collect::<S3Result<_>>()?),
            ..Default::default()
        })
    }

    /// Lists the open uploads below a prefix, by key and age. Never in pages: there are never that many here.
    pub(super) fn list_uploads(
        &self,
        bucket: &str,
        prefix: &str,
    ) -> S3Result<ListMultipartUploadsOutput> {
        self.check_bucket(bucket)?;
        let mut uploads: Vec<Upload> = Vec::new();
        for entry in std::fs::read_dir(self.root().join(".uploads")).map_err(internal)? {
            let path = entry.map_err(internal)?.path().join("upload");
            // An upload that is completed meanwhile is not open.
            let Ok(bytes) = std::fs::read(path) else {
                continue;
            };
            let upload: Upload = serde_json::from_slice(&bytes).map_err(internal)?;
            if upload.bucket == bucket && upload.key.starts_with(prefix) {
                uploads.push(upload);
            }
        }
        uploads.sort_by(|a, b| (&a.key, a.initiated).cmp(&(&b.key, b.initiated)));
        let uploads = uploads.into_iter().map(|upload| MultipartUpload {
            key: Some(upload.key),
            upload_id: Some(upload.id),
            initiated: Some(Timestamp::from(upload.initiated)),
            checksum_algorithm: upload.algorithm.map(Into::into),
            ..Default::default()
        });
        Ok(ListMultipartUploadsOutput {
            bucket: Some(bucket.to_owned()),
            prefix: Some(prefix.to_owned()),
            is_truncated: Some(false),
            uploads: Some(uploads.collect()),
            ..Default::default()
        })
    }

    pub(super) async fn abort(&self, bucket: &str, key: &str, id: &str) -> S3Result<()> {
        let upload = self.upload(bucket, key, id)?;
        fs::remove_dir_all(self.upload_directory(&upload.id))
            .await
            .map_err(internal)
    }

    pub(super) async fn complete(
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
        let parts = chosen(self.parts(&upload.id)?, named.unwrap_or_default())?;
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

    /// Joins parts into one staged file, hashed as a whole.
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

/// Returns the stored parts that the client named, which must be as it says and in order.
fn chosen(stored: Vec<StoredPart>, named: &[CompletedPart]) -> S3Result<Vec<StoredPart>> {
    let mut numbered: std::collections::BTreeMap<i32, StoredPart> =
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
    if all_but_last.iter().any(|part| part.size < LEAST_PART) {
        return Err(s3_error!(
            EntityTooSmall,
            "Your proposed upload is smaller than the minimum allowed size"
        ));
    }
    Ok(parts)
}

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

fn no_such_upload() -> S3Error {
    s3_error!(
        NoSuchUpload,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or \
         completed."
    )
}
