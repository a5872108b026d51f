//! `contents.json.zst`: what must be in the databases after a restore, and their catalog properties.

use std::io::Read as _;

use serde::{Deserialize, Serialize};
use shared::manifest::SCHEMA_VERSION;
use shared::report::ExitCode;

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::postgres::database::DatabaseProperties;

/// The largest contents that are read, in bytes before compression: some 300,000 tables.
const MOST_BYTES: u64 = 32 * 1024 * 1024;

/// The compression level: the text is small, and written once.
const LEVEL: i32 = 9;

/// Everything in `contents.json.zst`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contents {
    /// The schema of the writer.
    pub(crate) schema_version: u32,
    /// The databases, in the order of their dumps' numbers.
    pub(crate) databases: Vec<DatabaseContents>,
}

/// One database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DatabaseContents {
    /// What neither the globals nor its dump restore.
    pub(crate) properties: DatabaseProperties,
    /// Ordinary tables that no extension owns, with the rows of the dump.
    pub(crate) tables: Vec<TableRows>,
    /// Everything else that must be there, whatever is in it.
    pub(crate) relations: Vec<Relation>,
}

/// A table and its rows, as `count(*) FROM ONLY` would count them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableRows {
    /// Its schema.
    pub(crate) schema: String,
    /// Its name.
    pub(crate) name: String,
    /// Rows in the dump.
    pub(crate) rows: u64,
}

/// A relation that must exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Relation {
    /// Its schema.
    pub(crate) schema: String,
    /// Its name.
    pub(crate) name: String,
    /// What it is.
    pub(crate) kind: RelationKind,
}

/// What a relation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RelationKind {
    /// A table whose rows are not counted, such as a partitioned one: `relkind` r or p.
    Table,
    /// `relkind` v.
    View,
    /// `relkind` m.
    MaterializedView,
    /// `relkind` S.
    Sequence,
    /// `relkind` f.
    ForeignTable,
}

impl RelationKind {
    /// Returns the values of `pg_class.relkind` that it may have.
    pub(crate) fn relkinds(self) -> &'static [char] {
        match self {
            Self::Table => &['r', 'p'],
            Self::View => &['v'],
            Self::MaterializedView => &['m'],
            Self::Sequence => &['S'],
            Self::ForeignTable => &['f'],
        }
    }
}

impl Contents {
    /// Describes these databases with this version's schema.
    pub(crate) fn new(databases: Vec<DatabaseContents>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            databases,
        }
    }

    /// Writes the object's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let doing = || "write the backup's contents";
        let json = serde_json::to_vec(self).or_fail(ExitCode::Internal, doing)?;
        if json.len() as u64 > MOST_BYTES {
            let message = format!(
                "the backup's contents have {} bytes, a restore reads at most {MOST_BYTES}: set [postgres] databases",
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

    /// Reads the object's bytes, whose hash has been checked.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let doing = || "read the backup's contents";
        let decoder = zstd::Decoder::new(bytes).or_fail(ExitCode::Verification, doing)?;
        let mut json = Vec::new();
        let length = decoder
            .take(MOST_BYTES + 1)
            .read_to_end(&mut json)
            .or_fail(ExitCode::Verification, doing)?;
        if length as u64 > MOST_BYTES {
            let message =
                format!("the backup's contents have more than {MOST_BYTES} bytes uncompressed");
            return Err(Failure::new(ExitCode::Verification, message));
        }
        let contents: Self =
            serde_json::from_slice(&json).or_fail(ExitCode::Verification, doing)?;
        if contents.schema_version > SCHEMA_VERSION {
            let message = format!(
                "the backup's contents have schema version {}, this agent reads up to {SCHEMA_VERSION}: \
                 deploy the newer version again",
                contents.schema_version
            );
            return Err(Failure::new(ExitCode::Verification, message));
        }
        Ok(contents)
    }
}
