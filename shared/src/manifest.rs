//! What a backup is: the index that the node writes, and the manifest by which the function commits it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::command::{Candidate, Purpose};
use crate::error::{Error, Result};
use crate::id::{
    ApplicationName, BackupId, CommandId, Crc64, InstanceId, OperationId, RunId, Sha256, is_version,
};
use crate::layout;

/// The schema that this version writes, and the newest that it reads.
pub const SCHEMA_VERSION: u32 = 1;

/// The largest index that a function reads. 10,000 databases stay below it.
pub const MOST_INDEX_BYTES: u64 = 8 * 1024 * 1024;

/// The largest manifest that a function reads: an index, indented, and a little more.
pub const MOST_MANIFEST_BYTES: u64 = 4 * MOST_INDEX_BYTES;

/// The most images of a backup: a function looks at every one of them.
pub const MOST_IMAGES: usize = 64;

/// One object of a backup, as it stands in S3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// The whole key.
    pub key: String,
    /// The version, where the bucket keeps versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the object's bytes, rechecked by every restore.
    pub sha256: Sha256,
    /// CRC-64/NVME of the object's bytes, checked by S3 at upload and by the function before the commit.
    pub crc64: Crc64,
}

/// How the node that was backed up came by its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Lineage {
    /// From this backup.
    Restored {
        /// The backup that was restored.
        backup_id: BackupId,
        /// The newer ones that could not be, newest first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        skipped: Vec<BackupId>,
    },
    /// The application was started empty: an application's first boot.
    FirstBoot,
    /// An operator declared the node's own data to be the application's.
    Adopted,
}

/// The instance and cluster that a backup was taken from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The EC2 instance.
    pub instance_id: InstanceId,
    /// Postgres' system identifier: it tells one cluster from another on the same instance.
    pub system_identifier: String,
    /// How the data came here.
    pub lineage: Lineage,
}

/// The programs that made a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// `server_version_num`, such as 150018.
    pub server: u32,
    /// The first line of `pg_dump --version`.
    pub pg_dump: String,
    /// The agent's own version.
    pub agent: String,
}

/// One database of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseRecord {
    /// The database's name.
    pub name: String,
    /// The key of its dump, which is one of the index's objects.
    pub key: String,
    /// Tables whose rows were counted.
    pub tables: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of the dump before compression.
    pub dump_bytes: u64,
    /// `pg_database_size` when the backup was taken: what a restore needs room for.
    pub database_bytes: u64,
}

/// The image of one or more containers of the application. It is stored once, whatever the number of backups that name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The image's id, without `sha256:`: the engine's own digest of all that is in it.
    pub id: Sha256,
    /// The names by which the node's engine knew it, such as `postgres:15`.
    #[serde(default)]
    pub names: Vec<String>,
    /// What `docker save` wrote of it, compressed with zstd.
    pub object: ObjectRecord,
}

/// Seconds that a stage of a backup took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// What was done.
    pub stage: String,
    /// Wall-clock seconds.
    pub seconds: f64,
}

/// `index.json`: everything that one attempt at a backup put into S3. The node writes it last, and its report
/// carries the SHA-256 of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// The application of the node's own settings.
    pub application: ApplicationName,
    /// The backup.
    pub backup_id: BackupId,
    /// The attempt.
    pub run_id: RunId,
    /// The operation that asked for it.
    pub operation_id: OperationId,
    /// Why it was taken.
    pub purpose: Purpose,
    /// Where it was taken.
    pub node: Node,
    /// What took it.
    pub versions: Versions,
    /// When the first dump began: the restored state is at least this new.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When the last object was complete.
    #[serde(with = "time::serde::rfc3339")]
    pub finished_at: OffsetDateTime,
    /// The databases, in the order of their dumps' numbers.
    pub databases: Vec<DatabaseRecord>,
    /// The configured paths, in the order of the archive's numbers.
    pub configuration_paths: Vec<String>,
    /// All objects but the index itself and the images, which are not this backup's alone.
    pub objects: Vec<ObjectRecord>,
    /// The images of the application's containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageRecord>,
    /// What stood in the way of saving an image, each with its container. The data are complete all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsaved_images: Vec<String>,
    /// How long each stage took; some are beside each other.
    pub timings: Vec<Timing>,
}

/// The commit record: a backup exists if and only if its manifest does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// When the backup was committed.
    #[serde(with = "time::serde::rfc3339")]
    pub committed_at: OffsetDateTime,
    /// The SSM command that made it.
    pub command_id: CommandId,
    /// The index object itself.
    pub index_object: ObjectRecord,
    /// Why the backup was kept aside, where it was; an operator may have accepted it since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined_for: Option<String>,
    /// What the index says; everything in it was checked against S3.
    pub index: Index,
}

impl ObjectRecord {
    /// Checks that the object lies under the prefix of its attempt, and can be asked for; says what is wrong.
    fn check(&self, prefix: &str) -> std::result::Result<(), String> {
        let key = &self.key;
        let name = key.strip_prefix(prefix);
        let climbs = |name: &str| name.split('/').any(|part| matches!(part, "" | "." | ".."));
        if name.is_none_or(climbs) {
            return Err(format!("the object {key} lies outside the backup"));
        }
        self.can_be_asked_for()
    }

    fn can_be_asked_for(&self) -> std::result::Result<(), String> {
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
    /// Checks that every image lies where the application's images do, and is there once; says what is wrong.
    fn check_images(&self) -> std::result::Result<(), String> {
        let (count, unsaved) = (self.images.len(), self.unsaved_images.len());
        if count.max(unsaved) > MOST_IMAGES {
            return Err(format!(
                "it lists {count} images and {unsaved} others, at most {MOST_IMAGES} are looked at"
            ));
        }
        let mut seen = BTreeSet::new();
        for image in &self.images {
            let (id, key) = (&image.id, &image.object.key);
            if *key != layout::image(&self.application, id) {
                return Err(format!("the image {id} lies at {key}"));
            }
            image.object.can_be_asked_for()?;
            if !seen.insert(id) {
                return Err(format!("it lists the image {id} more than once"));
            }
        }
        Ok(())
    }

    /// Reads an index, and checks that it is the one of this application, backup and attempt, that every object lies
    /// under its own prefix, and that it lists whatever a restore needs, once, and nothing else.
    pub fn parse(
        bytes: &[u8],
        application: &ApplicationName,
        backup: &BackupId,
        run: &RunId,
    ) -> Result<Self> {
        let object = layout::object(application, backup, run, layout::INDEX);
        let index: Self = parse_versioned(bytes, &object)?;
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
        // A function looks at every object that is listed: there may be no more than a restore reads.
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
    pub fn object(&self, name: &str) -> Result<&ObjectRecord> {
        let key = layout::object(&self.application, &self.backup_id, &self.run_id, name);
        let found = self.objects.iter().find(|record| record.key == key);
        found.ok_or_else(|| Error::contract(key, "the index does not list it"))
    }

    /// Returns the rows of all counted tables.
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

    /// Returns every object that the backup needs, the index not counted: its own, and the images.
    pub fn needed(&self) -> impl Iterator<Item = &ObjectRecord> {
        let images = self.images.iter().map(|image| &image.object);
        self.objects.iter().chain(images)
    }

    /// Returns the bytes of the backup's own objects in S3, the index not counted.
    pub fn bytes(&self) -> u64 {
        self.objects
            .iter()
            .map(|record| record.size)
            .fold(0, u64::saturating_add)
    }
}

impl Manifest {
    /// Reads a manifest and checks that it commits this application's backup of this id, and names no object of another.
    pub fn parse(bytes: &[u8], application: &ApplicationName, backup: &BackupId) -> Result<Self> {
        let key = layout::manifest(application, backup);
        let manifest: Self = parse_versioned(bytes, &key)?;
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

    /// Returns what a restore command needs to say of this backup.
    pub fn candidate(&self) -> Candidate {
        Candidate {
            backup_id: self.index.backup_id.clone(),
            run_id: self.index.run_id.clone(),
            index_sha256: self.index_object.sha256.clone(),
            index_version: self.index_object.version_id.clone(),
        }
    }
}

/// The words by which [`is_newer_schema`] knows the one unreadable document that must never be skipped.
const NEWER_SCHEMA: &str = "newer schema version";

/// Tells whether reading failed because a newer Rekindle wrote the document: falling back to an older backup
/// would then silently lose data that a newer version could restore.
pub fn is_newer_schema(error: &Error) -> bool {
    matches!(error, Error::Contract { problem, .. } if problem.starts_with(NEWER_SCHEMA))
}

fn parse_versioned<T: for<'de> Deserialize<'de>>(bytes: &[u8], object: &str) -> Result<T> {
    #[derive(Deserialize)]
    struct Version {
        schema_version: u32,
    }
    let unreadable =
        |error: serde_json::Error| Error::contract(object, format!("not readable: {error}"));
    let Version { schema_version } = serde_json::from_slice(bytes).map_err(unreadable)?;
    if schema_version > SCHEMA_VERSION {
        let problem = format!(
            "{NEWER_SCHEMA} {schema_version}, this Rekindle reads up to {SCHEMA_VERSION}: deploy the newer version again"
        );
        return Err(Error::contract(object, problem));
    }
    serde_json::from_slice(bytes).map_err(unreadable)
}
