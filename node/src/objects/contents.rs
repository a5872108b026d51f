//! `contents.json.zst`: the databases of a backup with their properties, and every relation that a restore must bring
//! back.

use std::io::Read as _;

use serde::{Deserialize, Serialize};
use shared::exit_code::ExitCode;
use shared::manifest::SCHEMA_VERSION;

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::postgres::database::properties::DatabaseProperties;
use crate::postgres::relation::{Relation, TableRows};
use crate::postgres::setting::Setting;
use crate::postgres::system_setting::SystemSetting;

/// The largest contents that can be read, in bytes before compression: some 300,000 tables.
const MOST_BYTES: u64 = 32 * 1024 * 1024;

/// The compression level. The text is small and written only once.
const LEVEL: i32 = 9;

/// The document in `contents.json.zst`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contents {
    /// The schema version of the agent that wrote it.
    pub(crate) schema_version: u32,
    /// The settings of all roles in all databases. Backups of the first version do not have them.
    #[serde(default)]
    pub(crate) settings: Vec<Setting>,
    /// The settings by `ALTER SYSTEM`. Backups of the first version do not have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) system_settings: Vec<SystemSetting>,
    /// The databases, in the order of their dumps' numbers.
    pub(crate) databases: Vec<DatabaseContents>,
}

/// One database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DatabaseContents {
    /// The properties that neither the globals nor the dump restore.
    pub(crate) properties: DatabaseProperties,
    /// The ordinary tables that no extension owns, with the rows of the dump.
    pub(crate) tables: Vec<TableRows>,
    /// All other relations that must exist, whatever they contain.
    pub(crate) relations: Vec<Relation>,
}

impl Contents {
    /// Describes a cluster with this agent's schema version.
    pub(crate) fn new(
        settings: Vec<Setting>,
        system_settings: Vec<SystemSetting>,
        databases: Vec<DatabaseContents>,
    ) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            settings,
            system_settings,
            databases,
        }
    }

    /// Returns the object's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let doing = || "cannot write the backup's contents";
        let json = serde_json::to_vec(self).or_fail(ExitCode::Internal, doing)?;
        if json.len() as u64 > MOST_BYTES {
            let message = format!(
                "cannot write the backup's contents: they have {} bytes, and a restore reads at most {MOST_BYTES}; \
                 select fewer databases with [postgres] databases",
                json.len()
            );
            return Err(Failure::new(ExitCode::Internal, message));
        }
        let mut encoder =
            zstd::Encoder::new(Vec::new(), LEVEL).or_fail(ExitCode::Internal, doing)?;
        encoder
            .include_checksum(true)
            .or_fail(ExitCode::Internal, doing)?;
        std::io::Write::write_all(&mut encoder, &json).or_fail(ExitCode::Internal, doing)?;
        encoder.finish().or_fail(ExitCode::Internal, doing)
    }

    /// Parses the object's bytes. The caller has checked their hash.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let doing = || "cannot read the backup's contents";
        let decoder = zstd::Decoder::new(bytes).or_fail(ExitCode::Verification, doing)?;
        let mut json = Vec::new();
        let length = decoder
            .take(MOST_BYTES + 1)
            .read_to_end(&mut json)
            .or_fail(ExitCode::Verification, doing)?;
        if length as u64 > MOST_BYTES {
            let message = format!(
                "cannot read the backup's contents: they have more than {MOST_BYTES} bytes uncompressed; restore \
                 another backup"
            );
            return Err(Failure::new(ExitCode::Verification, message));
        }
        let contents: Self =
            serde_json::from_slice(&json).or_fail(ExitCode::Verification, doing)?;
        if contents.schema_version > SCHEMA_VERSION {
            let message = format!(
                "cannot read the backup's contents: they have schema version {}, and this agent reads up to \
                 {SCHEMA_VERSION}; deploy the newer version of Rekindle again",
                contents.schema_version
            );
            return Err(Failure::new(ExitCode::Verification, message));
        }
        Ok(contents)
    }
}
