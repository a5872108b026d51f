//! Reads an archive of `pg_dump -Fc` as a stream: counts the rows of every table, and detects every truncation.
//!
//! An archive is a header, a table of contents, then one block for each entry with data. The format has no end mark and
//! no checksum. If an archive is cut off between two blocks, only the missing blocks of the table of contents show it.

mod blocks;
mod entries;
mod error;
mod input;
mod split;
mod table_of_contents;

use std::collections::HashMap;
use std::io::BufRead;

use self::blocks::{BLOCK_DATA, BLOCK_LARGE_OBJECTS};
use self::error::Result;
use self::input::Input;
use self::table_of_contents::{Name, TableOfContents};
use crate::postgres::relation::{Relation, RelationKind, TableRows};

pub(crate) use self::entries::{Entry, entries};
pub use self::error::ArchiveError;
pub(crate) use self::split::split;

/// The relations in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Archive {
    /// The ordinary tables that no extension owns, with their rows.
    pub(crate) tables: Vec<TableRows>,
    /// All other relations.
    pub(crate) relations: Vec<Relation>,
}

/// Reads a whole archive.
pub fn read(reader: &mut dyn BufRead) -> Result<Archive> {
    let mut input = Input::new(reader);
    let mut contents = TableOfContents::read(&mut input)?;
    let mut missing = std::mem::take(&mut contents.with_data);
    let mut rows = HashMap::new();
    while let Some(block) = input.optional_byte()? {
        let id = input.integer()?;
        if !missing.remove(&id) {
            return Err(input.damaged(&format!(
                "a block belongs to the entry {id}, which has no data or had its block already,"
            )));
        }
        match block {
            BLOCK_DATA if contents.table_data.contains_key(&id) => {
                rows.insert(id, blocks::count_rows(&mut input)?);
            }
            BLOCK_DATA => blocks::skip_data(&mut input)?,
            BLOCK_LARGE_OBJECTS => blocks::skip_large_objects(&mut input)?,
            other => return Err(input.damaged(&format!("a block has the unknown type {other}"))),
        }
    }
    if !missing.is_empty() {
        let (count, at) = (missing.len(), input.at);
        return Err(ArchiveError::Malformed(format!(
            "the dump is truncated: it ends at byte {at}, but {count} data blocks are missing"
        )));
    }
    Ok(archive(contents, &rows))
}

/// Combines the table of contents with the rows that were counted for each of its entries.
fn archive(contents: TableOfContents, rows: &HashMap<i64, u64>) -> Archive {
    let counts: HashMap<&Name, u64> = contents
        .table_data
        .iter()
        .filter(|(_, data)| data.into_table)
        .map(|(id, data)| (&data.table, rows.get(id).copied().unwrap_or(0)))
        .collect();
    let mut archive = Archive::default();
    // Data without a relation belong to a configuration table of an extension. They are not counted, because the
    // extension itself inserts rows into the table.
    for (name, kind) in contents.relations {
        let rows = counts.get(&name).filter(|_| kind == RelationKind::Table);
        let (schema, name) = name;
        match rows {
            Some(rows) => archive.tables.push(TableRows {
                schema,
                name,
                rows: *rows,
            }),
            None => archive.relations.push(Relation { schema, name, kind }),
        }
    }
    archive
}

#[cfg(test)]
mod tests;
