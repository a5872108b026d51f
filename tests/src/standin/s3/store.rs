//! Objects on disk: the bytes in `<root>/<bucket>/<key>`, and a JSON record for each object.
//!
//! An object exists if and only if its record exists. Bytes are staged and checked before a file or record is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::SystemTime;

use futures_util::StreamExt;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{Checksum, ETagCondition, StreamingBlob};
use s3s::{S3Error, S3Result, s3_error};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::fs::{self, File};
use tokio::io::{AsyncWriteExt, BufWriter};

use super::checksums::Checksums;
use crate::lock::lock;

const BUFFER: usize = 1 << 20;

/// The properties of an object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) key: String,
    pub(super) version_id: String,
    pub(super) e_tag: String,
    /// The number of bytes when the object was created.
    pub(super) size: u64,
    pub(super) created: SystemTime,
    pub(super) checksums: Checksums,
    /// `FULL_OBJECT` or `COMPOSITE`.
    pub(super) checksum_type: String,
    pub(super) attributes: Attributes,
}

/// The attributes that the creator of the object gave it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Attributes {
    pub(super) content_type: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) metadata: Option<BTreeMap<String, String>>,
}

/// Bytes that were received and hashed, and belong to no object yet.
pub(super) struct Staged {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    pub(super) md5: Vec<u8>,
    pub(super) checksum: Checksum,
}

/// An object that is to be created.
pub(super) struct NewObject<'a> {
    pub(super) bucket: &'a str,
    pub(super) key: &'a str,
    pub(super) e_tag: String,
    pub(super) checksums: Checksums,
    pub(super) checksum_type: &'static str,
    pub(super) attributes: Attributes,
}

/// The conditions of a write.
#[derive(Clone, Copy, Default)]
pub(super) struct Conditions<'a> {
    pub(super) if_none_match: Option<&'a ETagCondition>,
    pub(super) if_match: Option<&'a ETagCondition>,
}

/// The directory of all buckets. Only one process may use it, because its locks are in memory.
pub(super) struct Store {
    root: PathBuf,
    pub(super) keys: Keys,
    creating: tokio::sync::Mutex<()>,
}

impl Store {
    pub(super) fn new(root: &Path) -> std::io::Result<Self> {
        for name in [".records", ".staged", ".uploads"] {
            std::fs::create_dir_all(root.join(name))?;
        }
        Ok(Self {
            root: root.canonicalize()?,
            keys: Keys::of_records(&root.join(".records"))?,
            creating: tokio::sync::Mutex::new(()),
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns `NoSuchBucket` if the bucket does not exist.
    pub(super) fn check_bucket(&self, bucket: &str) -> S3Result<()> {
        if self.root.join(bucket).is_dir() {
            return Ok(());
        }
        Err(s3_error!(
            NoSuchBucket,
            "The specified bucket does not exist"
        ))
    }

    /// Returns the path of an object's bytes, or an error for a key that cannot be the path of a file.
    pub(super) fn object_path(&self, bucket: &str, key: &str) -> S3Result<PathBuf> {
        let impossible =
            |part: &str| part.is_empty() || part == "." || part == ".." || part.len() > 255;
        if key.split('/').any(impossible) || key.contains('\0') {
            return Err(s3_error!(
                NotImplemented,
                "the stand-in stores objects as files, and this key cannot be the path of a file"
            ));
        }
        Ok(self.root.join(bucket).join(key))
    }

    /// Returns the path of an object's record.
    pub(super) fn record_path(&self, bucket: &str, key: &str) -> PathBuf {
        let name = hex(&Sha256::digest(key));
        self.root.join(".records").join(bucket).join(name)
    }

    /// Returns an object's record, or `None` if there is no such object.
    pub(super) fn record(&self, bucket: &str, key: &str) -> S3Result<Option<Record>> {
        match std::fs::read(self.record_path(bucket, key)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(internal),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(internal(error)),
        }
    }

    /// Returns the record of an object, or S3's error if the object or the requested version does not exist.
    pub(super) fn existing(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&str>,
    ) -> S3Result<Record> {
        self.check_bucket(bucket)?;
        let record = self.record(bucket, key)?;
        match (record, version) {
            (Some(record), Some(version)) if record.version_id != version => Err(no_such_version()),
            (Some(record), _) => Ok(record),
            (None, Some(_)) => Err(no_such_version()),
            (None, None) => Err(s3_error!(NoSuchKey, "The specified key does not exist.")),
        }
    }

    /// Blocks the creation and deletion of objects while the guard exists, so that every listed object can be read, as in
    /// S3.
    pub(super) async fn block_changes(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.creating.lock().await
    }

    /// Receives bytes into a staged file, and hashes them with MD5 and `hasher`.
    pub(super) async fn stage(
        &self,
        mut body: StreamingBlob,
        mut hasher: ChecksumHasher,
    ) -> S3Result<Staged> {
        let path = self.staging_path();
        let mut file =
            BufWriter::with_capacity(BUFFER, File::create(&path).await.map_err(internal)?);
        let mut md5 = Md5::new();
        let mut size = 0;
        while let Some(chunk) = body.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => {
                    fs::remove_file(&path).await.map_err(internal)?;
                    return Err(S3Error::with_source(
                        s3s::S3ErrorCode::IncompleteBody,
                        error,
                    ));
                }
            };
            md5.update(&chunk);
            hasher.update(&chunk);
            size += chunk.len() as u64;
            file.write_all(&chunk).await.map_err(internal)?;
        }
        file.flush().await.map_err(internal)?;
        Ok(Staged {
            path,
            size,
            md5: md5.finalize().as_ref().to_vec(),
            checksum: hasher.finalize(),
        })
    }

    /// Returns a new path for a staged file.
    pub(super) fn staging_path(&self) -> PathBuf {
        self.root
            .join(".staged")
            .join(uuid::Uuid::new_v4().to_string())
    }

    /// Turns a staged file into an object. Removes the file if a condition does not hold.
    pub(super) async fn create(
        &self,
        path: &Path,
        object: NewObject<'_>,
        conditions: Conditions<'_>,
    ) -> S3Result<Record> {
        let created = self.create_locked(path, object, conditions).await;
        if created.is_err() {
            fs::remove_file(path).await.map_err(internal)?;
        }
        created
    }

    async fn create_locked(
        &self,
        path: &Path,
        object: NewObject<'_>,
        conditions: Conditions<'_>,
    ) -> S3Result<Record> {
        let NewObject { bucket, key, .. } = object;
        let _one_at_a_time = self.block_changes().await;
        self.check_conditions(bucket, key, conditions)?;
        let target = self.object_path(bucket, key)?;
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).await.map_err(internal)?;
        }
        let record = Record {
            key: key.to_owned(),
            version_id: uuid::Uuid::new_v4().simple().to_string(),
            e_tag: object.e_tag,
            size: fs::metadata(path).await.map_err(internal)?.len(),
            created: SystemTime::now(),
            checksums: object.checksums,
            checksum_type: object.checksum_type.to_owned(),
            attributes: object.attributes,
        };
        fs::rename(path, target).await.map_err(internal)?;
        self.write_record(bucket, &record)?;
        Ok(record)
    }

    /// Checks `If-None-Match: *` and `If-Match`, as S3 does before a write.
    pub(super) fn check_conditions(
        &self,
        bucket: &str,
        key: &str,
        conditions: Conditions<'_>,
    ) -> S3Result<()> {
        self.check_bucket(bucket)?;
        let failed = || {
            s3_error!(
                PreconditionFailed,
                "At least one of the pre-conditions you specified did not hold"
            )
        };
        let record = self.record(bucket, key)?;
        match conditions.if_none_match {
            Some(ETagCondition::Any) if record.is_some() => return Err(failed()),
            Some(ETagCondition::ETag(_)) => {
                return Err(s3_error!(
                    NotImplemented,
                    "If-None-Match takes only * on a write"
                ));
            }
            _ => {}
        }
        match (conditions.if_match, record) {
            (None, _) | (Some(ETagCondition::Any), Some(_)) => Ok(()),
            (Some(ETagCondition::ETag(e_tag)), Some(record)) if e_tag.value() == record.e_tag => {
                Ok(())
            }
            (Some(_), Some(_)) => Err(failed()),
            (Some(_), None) => Err(s3_error!(NoSuchKey, "The specified key does not exist.")),
        }
    }

    /// Writes an object's record.
    pub(super) fn write_record(&self, bucket: &str, record: &Record) -> S3Result<()> {
        let path = self.record_path(bucket, &record.key);
        std::fs::create_dir_all(self.root.join(".records").join(bucket)).map_err(internal)?;
        // Renamed into place, so that no reader sees half a record.
        let staged = self.staging_path();
        std::fs::write(&staged, serde_json::to_vec(record).map_err(internal)?).map_err(internal)?;
        std::fs::rename(staged, path).map_err(internal)?;
        self.keys.insert(bucket, &record.key);
        Ok(())
    }

    /// Removes an object. Succeeds if there is none.
    pub(super) async fn remove(&self, bucket: &str, key: &str) -> S3Result<()> {
        self.check_bucket(bucket)?;
        let _one_at_a_time = self.block_changes().await;
        for path in [
            self.record_path(bucket, key),
            self.object_path(bucket, key)?,
        ] {
            match fs::remove_file(path).await {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(internal(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn no_such_version() -> S3Error {
    s3_error!(NoSuchVersion, "The specified version does not exist.")
}

/// Returns S3's internal error for a failure of the stand-in itself.
pub(super) fn internal(error: impl std::error::Error + Send + Sync + 'static) -> S3Error {
    S3Error::internal_error(error)
}

/// Returns bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

/// The keys of each bucket, deleted ones included: an object exists only if it has a record.
///
/// The index exists because a walk through the directory for each listing takes too long with the objects of a thousand
/// applications.
#[derive(Default)]
pub(super) struct Keys(Mutex<BTreeMap<String, BTreeSet<String>>>);

impl Keys {
    /// Reads the keys of all objects from a directory of records.
    pub(super) fn of_records(records: &Path) -> std::io::Result<Self> {
        let keys = Self::default();
        for bucket in std::fs::read_dir(records)? {
            let bucket = bucket?;
            let name = bucket.file_name().to_string_lossy().into_owned();
            for record in std::fs::read_dir(bucket.path())? {
                let record = std::fs::read(record?.path())?;
                let record: Record = serde_json::from_slice(&record)?;
                keys.insert(&name, &record.key);
            }
        }
        Ok(keys)
    }

    pub(super) fn insert(&self, bucket: &str, key: &str) {
        let mut buckets = self.buckets();
        buckets
            .entry(bucket.to_owned())
            .or_default()
            .insert(key.to_owned());
    }

    /// Returns the first key with a prefix at or after a bound, or `None` if there is none.
    pub(super) fn first(&self, bucket: &str, from: &Bound<String>, prefix: &str) -> Option<String> {
        let buckets = self.buckets();
        let from = from.as_ref().map(String::as_str);
        let mut keys = buckets
            .get(bucket)?
            .range::<str, _>((from, Bound::Unbounded));
        keys.next().filter(|key| key.starts_with(prefix)).cloned()
    }

    fn buckets(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<String>>> {
        lock(&self.0)
    }
}
