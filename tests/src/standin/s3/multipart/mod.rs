//! Multipart uploads. Until an upload is completed or aborted, it is a directory with a file and a record per part.
//!
//! This module opens, lists and aborts uploads; [`parts`] stores their parts, and [`complete`] combines them into an object.

mod complete;
mod parts;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::SystemTime;

use s3s::dto::{
    ChecksumType, CreateMultipartUploadInput, ListMultipartUploadsOutput, MultipartUpload,
    Timestamp,
};
use s3s::{S3Error, S3Result, s3_error};
use serde::{Deserialize, Serialize};
use tokio::fs;

use super::objects::{DEFAULT_ALGORITHM, FULL_OBJECT};
use super::store::{Attributes, Store, internal};

/// An open upload, as its record on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Upload {
    bucket: String,
    key: String,
    id: String,
    initiated: SystemTime,
    /// The checksum algorithm that the client requested, or `None` for S3's default.
    algorithm: Option<String>,
    /// Whether the object's checksum is computed from the checksums of its parts.
    composite: bool,
    attributes: Attributes,
}

impl Store {
    fn upload_directory(&self, id: &str) -> PathBuf {
        self.root().join(".uploads").join(id)
    }

    /// Returns the open upload with this id for this key.
    fn upload(&self, bucket: &str, key: &str, id: &str) -> S3Result<Upload> {
        // The id becomes the name of a directory, so it must have the form of an id.
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

    /// Opens an upload and returns its id.
    pub(super) fn create_upload(&self, input: CreateMultipartUploadInput) -> S3Result<String> {
        self.check_bucket(&input.bucket)?;
        self.object_path(&input.bucket, &input.key)?;
        let algorithm = input
            .checksum_algorithm
            .map(|name| name.as_str().to_owned());
        let requested = input.checksum_type.as_ref().map(ChecksumType::as_str);
        let crc64 = algorithm.as_deref().unwrap_or(DEFAULT_ALGORITHM) == DEFAULT_ALGORITHM;
        let sha = algorithm
            .as_deref()
            .is_some_and(|name| name.starts_with("SHA"));
        if (crc64 && requested == Some(ChecksumType::COMPOSITE))
            || (sha && requested == Some(FULL_OBJECT))
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
            composite: !crc64 && requested != Some(FULL_OBJECT),
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

    /// Returns the open uploads below a prefix, sorted by key and age, in one page: the tests never have many.
    pub(super) fn list_uploads(
        &self,
        bucket: &str,
        prefix: &str,
    ) -> S3Result<ListMultipartUploadsOutput> {
        self.check_bucket(bucket)?;
        let mut uploads: Vec<Upload> = Vec::new();
        for entry in std::fs::read_dir(self.root().join(".uploads")).map_err(internal)? {
            let path = entry.map_err(internal)?.path().join("upload");
            // The record is gone if the upload was completed meanwhile.
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

    /// Removes an open upload and its parts.
    pub(super) async fn abort(&self, bucket: &str, key: &str, id: &str) -> S3Result<()> {
        let upload = self.upload(bucket, key, id)?;
        fs::remove_dir_all(self.upload_directory(&upload.id))
            .await
            .map_err(internal)
    }
}

fn no_such_upload() -> S3Error {
    s3_error!(
        NoSuchUpload,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or \
         completed."
    )
}
