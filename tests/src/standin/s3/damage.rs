//! Reads, damages and replaces objects on disk, without a request to S3.
//!
//! For faults of requests, see [`S3Fault`](super::S3Fault).

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context as _, Result, anyhow, ensure};
use shared::checksum::digests;

use super::S3;
use super::checksums::Checksums;
use super::objects::{DEFAULT_ALGORITHM, FULL_OBJECT};
use super::store::{Attributes, Record, hex};

impl S3 {
    /// Returns the keys below a prefix, in order.
    pub fn keys(&self, bucket: &str, prefix: &str) -> Result<Vec<String>> {
        let below = self.store.below(bucket, prefix);
        let below = below.map_err(|error| anyhow!("{error}"))?;
        Ok(below.into_iter().map(|record| record.key).collect())
    }

    /// Returns the path of the file with an object's bytes, or an error if there is no such object.
    pub fn path(&self, bucket: &str, key: &str) -> Result<PathBuf> {
        self.record(bucket, key)?;
        self.store
            .object_path(bucket, key)
            .map_err(|error| anyhow!("{error}"))
    }

    /// Reads an object's bytes.
    pub fn read(&self, bucket: &str, key: &str) -> Result<Vec<u8>> {
        let path = self.path(bucket, key)?;
        std::fs::read(&path).with_context(|| format!("read {}", path.display()))
    }

    /// Returns the two files of an object, its bytes and its record, with their contents.
    pub fn save(&self, bucket: &str, key: &str) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let paths = [self.path(bucket, key)?, self.store.record_path(bucket, key)];
        let read = |path: PathBuf| {
            let bytes = std::fs::read(&path);
            let bytes = bytes.with_context(|| format!("read {}", path.display()))?;
            Ok((path, bytes))
        };
        paths.into_iter().map(read).collect()
    }

    /// Truncates an object at rest to a length in bytes. HEAD still reports the old size and checksum.
    pub fn truncate(&self, bucket: &str, key: &str, length: u64) -> Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .open(self.path(bucket, key)?)?;
        file.set_len(length).context("truncate the object")
    }

    /// Inverts one byte of an object at rest. HEAD still reports the old checksum.
    pub fn flip(&self, bucket: &str, key: &str, at: u64) -> Result<()> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(bucket, key)?)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)
            .with_context(|| format!("read byte {at} of {key}"))?;
        file.write_all_at(&[!byte[0]], at)
            .with_context(|| format!("write byte {at} of {key}"))
    }

    /// Inverts the byte in the middle of an object at rest; a second call repairs the object.
    pub fn flip_middle(&self, bucket: &str, key: &str) -> Result<()> {
        let length = self.path(bucket, key)?.metadata()?.len();
        self.flip(bucket, key, length / 2)
    }

    /// Exchanges the bytes of two objects at rest. HEAD still reports the old sizes and checksums.
    pub fn swap(&self, bucket: &str, a: &str, b: &str) -> Result<()> {
        let (path_a, path_b) = (self.path(bucket, a)?, self.path(bucket, b)?);
        let temporary = self.store.staging_path();
        std::fs::rename(&path_a, &temporary)?;
        std::fs::rename(&path_b, &path_a)?;
        std::fs::rename(&temporary, &path_b).context("swap the objects")
    }

    /// Creates or replaces an object, as a client with the permission would. HEAD reports the new version and checksum.
    pub fn replace(&self, bucket: &str, key: &str, bytes: &[u8]) -> Result<()> {
        ensure!(
            self.store.root().join(bucket).is_dir(),
            "there is no bucket {bucket}"
        );
        let path = self
            .store
            .object_path(bucket, key)
            .map_err(|error| anyhow!("{error}"))?;
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, bytes)?;
        let crc64 = digests(bytes).crc64.as_str().to_owned();
        let record = Record {
            key: key.to_owned(),
            version_id: uuid::Uuid::new_v4().simple().to_string(),
            e_tag: hex(<s3s::crypto::Md5 as s3s::crypto::Checksum>::checksum(bytes).as_ref()),
            size: bytes.len() as u64,
            created: SystemTime::now(),
            checksums: Checksums::only(DEFAULT_ALGORITHM, Some(crc64)),
            checksum_type: FULL_OBJECT.to_owned(),
            attributes: Attributes::default(),
        };
        let written = self.store.write_record(bucket, &record);
        written.map_err(|error| anyhow!("{error}"))
    }

    /// Removes an object, as a client with the permission would.
    pub async fn remove(&self, bucket: &str, key: &str) -> Result<()> {
        self.record(bucket, key)?;
        let removed = self.store.remove(bucket, key).await;
        removed.map_err(|error| anyhow!("{error}"))
    }

    fn record(&self, bucket: &str, key: &str) -> Result<Record> {
        let record = self
            .store
            .record(bucket, key)
            .map_err(|error| anyhow!("{error}"))?;
        record.with_context(|| format!("there is no object {key} in {bucket}"))
    }
}
