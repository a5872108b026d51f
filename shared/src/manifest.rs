//! The content of a backup: the index that the node writes, and the manifest with which the function commits the
//! backup.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::command::{Candidate, Purpose};
use crate::error::{Error, Result};
use crate::id::{
    ApplicationName, BackupId, CommandId, Crc64, InstanceId, RunId, Sha256, is_version,
};
use crate::layout;
use crate::operation::Operation;
pub use crate::schema::is_newer_schema;
use crate::schema::parse_versioned;

/// The schema version that this version of Rekindle writes, and the newest that it reads.
pub const SCHEMA_VERSION: u32 = 1;

/// The largest index that is read, in bytes. The index of 10,000 databases is smaller.
pub const MOST_INDEX_BYTES: u64 = 8 * 1024 * 1024;

/// The largest manifest that is read, in bytes: an indented index and a few more fields.
pub(crate) const MOST_MANIFEST_BYTES: u64 = 4 * MOST_INDEX_BYTES;

/// The most images of a backup. A function checks each of them in S3.
pub const MOST_IMAGES: usize = 64;

/// An object of a backup in S3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// The key.
    pub key: String,
    /// The version, if the bucket keeps versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    /// The size in bytes.
    pub size: u64,
    /// SHA-256 of the object's bytes, verified by every restore.
    pub sha256: Sha256,
    /// CRC-64/NVME of the object's bytes, verified by S3 at upload and compared by the function before the commit.
    pub crc64: Crc64,
}

/// The origin of the node's data at the time of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Lineage {
    /// They were restored from a backup.
    Restored {
        /// The backup that was restored.
        backup_id: BackupId,
        /// The newer backups that could not be restored, newest first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        skipped: Vec<BackupId>,
    },
    /// The application was started empty at its first boot.
    FirstBoot,
    /// An operator adopted the node: declared that its data are the authoritative data.
    Adopted,
}

/// The instance and the Postgres cluster that were backed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The EC2 instance.
    pub instance_id: InstanceId,
    /// Postgres' system identifier: it distinguishes two clusters on the same instance.
    pub system_identifier: String,
    /// The origin of the data.
    pub lineage: Lineage,
}

/// The programs that made a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// `server_version_num`, such as 150018.
    pub server: u32,
    /// The first line of `pg_dump --version`.
    pub pg_dump: String,
    /// The agent's version.
    pub agent: String,
}

/// One database of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseRecord {
    /// The name of the database.
    pub name: String,
    /// The key of its dump in [`Index::objects`].
    pub key: String,
    /// The number of tables whose rows were counted.
    pub tables: u64,
    /// The number of rows in these tables.
    pub rows: u64,
    /// The size of the dump before compression, in bytes.
    pub dump_bytes: u64,
    /// `pg_database_size` at the time of the backup, in bytes: the disk space that a restore needs.
    pub database_bytes: u64,
}

/// A database that a backup does not contain, although no setting leaves it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedDatabase {
    /// The name of the database.
    pub name: String,
    /// The reason, for a person.
    pub reason: String,
}

/// The image of one or more containers of the application. It is stored once for all backups that list it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The image's id without `sha256:`: the container engine's digest of its content.
    pub id: Sha256,
    /// Its names in the node's container engine, such as `postgres:15`.
    #[serde(default)]
    pub names: Vec<String>,
    /// The output of `docker save`, compressed with zstd.
    pub object: ObjectRecord,
}

/// The duration of a stage of a backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// The name of the stage.
    pub stage: String,
    /// Wall-clock duration in seconds.
    pub seconds: f64,
}

/// `index.json`: everything that one run of a backup wrote to S3. The node writes it last, and its report has the
/// index's SHA-256.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// The writer's [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The application in the node's settings.
    pub application: ApplicationName,
    /// The backup.
    pub backup_id: BackupId,
    /// The run.
    pub run_id: RunId,
    /// The operation of the backup command.
    pub operation_id: Operation,
    /// Why the backup was taken.
    pub purpose: Purpose,
    /// The node that was backed up.
    pub node: Node,
    /// The programs that made the backup.
    pub versions: Versions,
    /// When the first dump began. The data are not older than this.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When the last object was complete.
    #[serde(with = "time::serde::rfc3339")]
    pub finished_at: OffsetDateTime,
    /// The databases, in the order of their dumps' numbers.
    pub databases: Vec<DatabaseRecord>,
    /// The databases that are closed, or were dropped during the backup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped_databases: Vec<SkippedDatabase>,
    /// The configured paths, in the order of the archive's numbers.
    pub configuration_paths: Vec<String>,
    /// All objects except the index itself and the images, which other backups share.
    pub objects: Vec<ObjectRecord>,
    /// The images of the application's containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageRecord>,
    /// The reasons for images that could not be saved, each with its container. The data are complete without them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsaved_images: Vec<String>,
    /// The duration of each stage; some stages overlap.
    pub timings: Vec<Timing>,
}

/// The manifest: a backup exists if and only if its manifest does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The writer's [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// When the backup was committed.
    #[serde(with = "time::serde::rfc3339")]
    pub committed_at: OffsetDateTime,
    /// The SSM command that made it.
    pub command_id: CommandId,
    /// The index as an object in S3.
    pub index_object: ObjectRecord,
    /// The reason for quarantine, or `None` if the backup was never quarantined. An operator may have accepted it
    /// since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined_for: Option<String>,
    /// The content of the index. All its objects were checked in S3 before the commit.
    pub index: Index,
}

impl ObjectRecord {
    /// Checks that the object is below the prefix of its run and can be requested. `Err` is the problem.
    fn check(&self, prefix: &str) -> std::result::Result<(), String> {
        let key = &self.key;
        let name = key.strip_prefix(prefix);
        let climbs = |name: &str| name.split('/').any(|part| matches!(part, "" | "." | ".."));
        if name.is_none_or(climbs) {
            return Err(format!("the object {key} lies outside the backup"));
        }
        self.check_request()
    }

    /// Checks that the object can be requested from S3. `Err` is the problem.
    fn check_request(&self) -> std::result::Result<(), String> {
        let key = &self.key;
        if self.size == 0 {
            return Err(format!("the object {key} is empty"));
        }
        match &self.version_id {
            Some(version) if !is_version(version) => Err(format!(
                "the object {key} has the impossible version {version:?}"
            )),
            _ => Ok(()),
        }
    }
}

impl Index {
    /// Checks that every image has its key below the application's images, and is listed once. `Err` is the problem.
    fn check_images(&self) -> std::result::Result<(), String> {
        let (count, unsaved) = (self.images.len(), self.unsaved_images.len());
        if count.max(unsaved) > MOST_IMAGES {
            return Err(format!(
                "it lists {count} images and {unsaved} unsaved images, at most {MOST_IMAGES} are allowed"
            ));
        }
        let mut seen = BTreeSet::new();
        for image in &self.images {
            let (id, key) = (&image.id, &image.object.key);
            if *key != layout::image(&self.application, id) {
                return Err(format!("the image {id} lies at {key}"));
            }
            image.object.check_request()?;
            if !seen.insert(id) {
                return Err(format!("it lists the image {id} more than once"));
            }
        }
        Ok(())
    }

    /// Parses an index. It must be of this application, backup and run, list every object that a restore needs exactly
    /// once and no other object, and have all of them below its own prefix.
    ///
    /// # Errors
    /// [`Error::Contract`] if it is not valid; see also [`is_newer_schema`].
    pub fn parse(
        bytes: &[u8],
        application: &ApplicationName,
        backup: &BackupId,
        run: &RunId,
    ) -> Result<Self> {
        let object = layout::object(application, backup, run, layout::INDEX);
        let index: Self = parse_versioned(bytes, &object, SCHEMA_VERSION)?;
        let wrong = |problem: String| Err(Error::contract(object.as_str(), problem));
        if (&index.application, &index.backup_id, &index.run_id) != (application, backup, run) {
            return wrong(format!(
                "it describes {}/{}/{}",
                index.application, index.backup_id, index.run_id
            ));
        }
        let prefix = layout::run_prefix(application, backup, run);
        let mut listed: BTreeMap<&str, usize> = BTreeMap::new();
        for record in &index.objects {
            if let Err(problem) = record.check(&prefix) {
                return wrong(problem);
            }
            *listed.entry(&record.key[prefix.len()..]).or_default() += 1;
        }
        let dumps = (0..index.databases.len()).map(layout::dump);
        let needed = [layout::GLOBALS, layout::CONTENTS, layout::CONFIGURATION]
            .map(str::to_owned)
            .into_iter()
            .chain(dumps);
        for name in needed {
            let count = listed.remove(name.as_str()).unwrap_or(0);
            if count != 1 {
                return wrong(format!("it lists {name} {count} times instead of once"));
            }
        }
        // A function checks each listed object in S3, so the number of objects is limited to those that a restore
        // reads.
        if let Some((name, _)) = listed.first_key_value() {
            return wrong(format!("it lists {name:?}, which is no part of a backup"));
        }
        if let Err(problem) = index.check_images() {
            return wrong(problem);
        }
        for (number, database) in index.databases.iter().enumerate() {
            if database.key != format!("{prefix}{}", layout::dump(number)) {
                return wrong(format!(
                    "database {number} names {} as its dump",
                    database.key
                ));
            }
        }
        Ok(index)
    }

    /// Returns the object with this name within the backup.
    ///
    /// # Errors
    /// [`Error::Contract`] if the index does not list it.
    pub fn object(&self, name: &str) -> Result<&ObjectRecord> {
        let key = layout::object(&self.application, &self.backup_id, &self.run_id, name);
        let found = self.objects.iter().find(|record| record.key == key);
        found.ok_or_else(|| Error::contract(key, "the index does not list it"))
    }

    /// Returns the number of rows in all counted tables.
    pub fn rows(&self) -> u64 {
        self.databases
            .iter()
            .map(|database| database.rows)
            .fold(0, u64::saturating_add)
    }

    /// Returns the number of counted tables.
    pub fn tables(&self) -> u64 {
        self.databases
            .iter()
            .map(|database| database.tables)
            .fold(0, u64::saturating_add)
    }

    /// Returns every object that the backup needs except the index: its own objects and the images.
    pub fn needed(&self) -> impl Iterator<Item = &ObjectRecord> {
        let images = self.images.iter().map(|image| &image.object);
        self.objects.iter().chain(images)
    }

    /// Returns the size of the backup's own objects in S3 in bytes, without the index.
    pub fn bytes(&self) -> u64 {
        self.objects
            .iter()
            .map(|record| record.size)
            .fold(0, u64::saturating_add)
    }
}

impl Manifest {
    /// Parses a manifest. It must be of this application and backup, and name no object outside of the backup.
    ///
    /// # Errors
    /// [`Error::Contract`] if it is not valid; see also [`is_newer_schema`].
    pub fn parse(bytes: &[u8], application: &ApplicationName, backup: &BackupId) -> Result<Self> {
        let key = layout::manifest(application, backup);
        let manifest: Self = parse_versioned(bytes, &key, SCHEMA_VERSION)?;
        if &manifest.index.application != application || &manifest.index.backup_id != backup {
            let (other_application, other_backup) =
                (&manifest.index.application, &manifest.index.backup_id);
            return Err(Error::contract(
                key,
                format!("it belongs to {other_application}/{other_backup}"),
            ));
        }
        let prefix = layout::run_prefix(application, backup, &manifest.index.run_id);
        let own = &manifest.index_object;
        if own.key.strip_prefix(&prefix) != Some(layout::INDEX) {
            return Err(Error::contract(
                key,
                format!("{} is not its index", own.key),
            ));
        }
        for record in manifest.index.objects.iter().chain([own]) {
            let checked = record.check(&prefix);
            checked.map_err(|problem| Error::contract(key.as_str(), problem))?;
        }
        let checked = manifest.index.check_images();
        checked.map_err(|problem| Error::contract(key.as_str(), problem))?;
        Ok(manifest)
    }

    /// Returns the backup as a restore command names it.
    pub fn candidate(&self) -> Candidate {
        Candidate {
            backup_id: self.index.backup_id.clone(),
            run_id: self.index.run_id.clone(),
            index_sha256: self.index_object.sha256.clone(),
            index_version: self.index_object.version_id.clone(),
        }
    }
}
