//! The header and the table of contents of an archive: which relations it creates, and which blocks follow.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::postgres::archive::error::{ArchiveError, Result};
use crate::postgres::archive::input::Input;
use crate::postgres::encoding;
use crate::postgres::relation::RelationKind;

/// The supported format versions: `pg_dump` 9.4 writes 1.12, and 18 writes 1.16.
const OLDEST: Version = (1, 12);
const NEWEST: Version = (1, 16);

/// The number of the custom format (`-Fc`).
const CUSTOM_FORMAT: u8 = 1;

/// The beginning of an entry's statement if its rows are loaded through another table.
const THROUGH_ROOT: &[u8] = b"-- load via partition root ";

pub(super) type Version = (u8, u8);

/// The table of contents.
#[derive(Default)]
pub(super) struct TableOfContents {
    /// Ids of the entries with data. `pg_dump` writes one block for each.
    pub(super) with_data: HashSet<i64>,
    /// The `TABLE DATA` entries by id.
    pub(super) table_data: HashMap<i64, TableData>,
    /// The relations that the archive creates.
    pub(super) relations: Vec<(Name, RelationKind)>,
}

/// The rows of one table.
pub(super) struct TableData {
    pub(super) table: Name,
    /// Whether the rows are loaded into this table, and not through the root of its partitions.
    pub(super) into_table: bool,
}

/// Schema and name.
pub(super) type Name = (String, String);

impl TableOfContents {
    /// Reads the header and the table of contents.
    pub(super) fn read(input: &mut Input<'_>) -> Result<Self> {
        let version = header(input)?;
        let count = input.integer()?;
        let mut contents = Self::default();
        for _ in 0..count {
            contents.entry(input, version)?;
        }
        Ok(contents)
    }

    fn entry(&mut self, input: &mut Input<'_>, version: Version) -> Result<()> {
        let Fields {
            id,
            has_data,
            description,
            tag,
            schema,
            through_root,
            ..
        } = Fields::read(input, version, None)?;
        if has_data && !self.with_data.insert(id) {
            return Err(input.damaged(&format!("two entries have the id {id}")));
        }
        let kind = relation_kind(&description);
        let is_table_data = has_data && description == b"TABLE DATA";
        if kind.is_none() && !is_table_data {
            return Ok(());
        }
        let (Some(schema), Some(tag)) = (schema, tag) else {
            return Ok(());
        };
        let name = (encoding::decode(&schema), encoding::decode(&tag));
        if is_table_data {
            let data = TableData {
                table: name,
                into_table: !through_root,
            };
            self.table_data.insert(id, data);
        } else if let Some(kind) = kind {
            self.relations.push((name, kind));
        }
        Ok(())
    }
}

/// The fields of an entry that are read.
pub(super) struct Fields {
    pub(super) id: i64,
    pub(super) has_data: bool,
    /// The kind of object, such as `INDEX`.
    pub(super) description: Vec<u8>,
    /// The object's name.
    pub(super) tag: Option<Vec<u8>>,
    pub(super) schema: Option<Vec<u8>>,
    pub(super) owner: Option<Vec<u8>>,
    pub(super) tablespace: Option<Vec<u8>>,
    /// Whether its rows are loaded through the root of the partitions. Not read if the entry is wanted.
    pub(super) through_root: bool,
    /// The statements that create the object. `None` if the entry is not wanted.
    pub(super) definition: Option<Vec<u8>>,
    /// The statement that drops the object. `None` if the entry is not wanted.
    pub(super) drop: Option<Vec<u8>>,
}

impl Fields {
    /// Reads the next entry. `wanted` are the numbers of the entries whose statements are read.
    pub(super) fn read(
        input: &mut Input<'_>,
        version: Version,
        wanted: Option<&BTreeSet<i64>>,
    ) -> Result<Self> {
        let id = input.integer()?;
        let is_wanted = wanted.is_some_and(|wanted| wanted.contains(&id));
        let has_data = input.integer()? != 0;
        input.skip_text()?; // oid of the catalog
        input.skip_text()?; // oid of the object
        let tag = input.text()?;
        let description = input.text()?.unwrap_or_default();
        input.integer()?; // section
        let (through_root, definition, drop) = if is_wanted {
            (false, input.statement()?, input.statement()?)
        } else {
            let through_root = input.text_begins_with(THROUGH_ROOT)?;
            input.skip_text()?;
            (through_root, None, None)
        };
        input.skip_text()?; // COPY statement
        let schema = input.text()?;
        let tablespace = input.text()?;
        if version >= (1, 14) {
            input.skip_text()?; // table access method
        }
        if version >= (1, 16) {
            input.integer()?; // kind of relation
        }
        let owner = input.text()?;
        input.skip_text()?; // WITH OIDS
        while input.skip_text()? {} // dependencies
        input.byte()?; // whether there is an offset
        input.skip(u64::from(input.offset_size))?;
        Ok(Self {
            id,
            has_data,
            description,
            tag,
            schema,
            owner,
            tablespace,
            through_root,
            definition,
            drop,
        })
    }
}

/// Reads the header and returns the format version.
pub(super) fn header(input: &mut Input<'_>) -> Result<Version> {
    let mut magic = [0; 5];
    for byte in &mut magic {
        *byte = input.byte()?;
    }
    if &magic != b"PGDMP" {
        return Err(input.damaged("it does not begin as an archive of pg_dump"));
    }
    let version = (input.byte()?, input.byte()?);
    input.byte()?; // revision
    if !(OLDEST..=NEWEST).contains(&version) {
        let (major, minor) = version;
        return Err(ArchiveError::Malformed(format!(
            "cannot read the dump: unknown format version {major}.{minor}; deploy a newer Rekindle"
        )));
    }
    input.int_size = input.byte()?;
    input.offset_size = input.byte()?;
    if !(1..=8).contains(&input.int_size) || !(1..=8).contains(&input.offset_size) {
        return Err(input.damaged("its numbers have an impossible size"));
    }
    if input.byte()? != CUSTOM_FORMAT {
        return Err(input.damaged("it does not have the custom format"));
    }
    let compression = if version >= (1, 15) {
        i64::from(input.byte()?)
    } else {
        input.integer()?
    };
    if compression != 0 {
        return Err(input.damaged("it has compressed data, although pg_dump ran with -Z0"));
    }
    // The time of the dump: seconds, minutes, hours, day, month, year, daylight saving.
    for _ in 0..7 {
        input.integer()?;
    }
    // The database's name, the server's version, the version of pg_dump.
    for _ in 0..3 {
        input.skip_text()?;
    }
    Ok(version)
}

fn relation_kind(description: &[u8]) -> Option<RelationKind> {
    let mut kinds = RelationKind::ALL.into_iter();
    kinds.find(|kind| kind.in_dump().as_bytes() == description)
}
