//! Reads `pg_dump`'s custom format as a stream: counts the rows of every table, and finds every kind of end that
//! is not the end.
//!
//! A header, a table of contents, then one block per entry that has data: `pg_dump -Fc` to a pipe. The format has
//! no end mark and no checksum of its own, so a truncation at a block's boundary shows only by the blocks that
//! the table of contents promised.

mod deal;
mod input;

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead};

use self::input::{Input, plain_length};
use crate::backup::contents::{Relation, RelationKind, TableRows};
use crate::postgres::encoding;

pub(crate) use self::deal::deal;

/// What a dump has in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Archive {
    /// Ordinary tables that no extension owns, with their rows.
    pub(crate) tables: Vec<TableRows>,
    /// All other relations.
    pub(crate) relations: Vec<Relation>,
}

/// Why a stream is not a whole archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The stream below failed.
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    /// The archive is not what `pg_dump` writes, or not all of it.
    #[error("{0}")]
    Malformed(String),
}

type Result<T> = std::result::Result<T, ArchiveError>;

/// Versions that are understood: `pg_dump` 9.4 writes 1.12, 18 writes 1.16.
const OLDEST: Version = (1, 12);
const NEWEST: Version = (1, 16);

/// The longest name that is kept, in bytes. A relation's has at most 63; a function's has its arguments' types behind it.
const LONGEST_NAME: u64 = 64 * 1024;

/// What `pg_dump` appends to the rows of a table.
const END_OF_COPY: &[u8] = b"\\.\n\n\n";

/// The beginning of an entry's statement where its rows are loaded through another table.
const THROUGH_ROOT: &[u8] = b"-- load via partition root ";

/// Block types.
const BLOCK_DATA: u8 = 1;
const BLOCK_LARGE_OBJECTS: u8 = 3;

type Version = (u8, u8);

/// Reads a whole archive.
pub fn read(reader: &mut dyn BufRead) -> Result<Archive> {
    let mut input = Input::new(reader);
    let mut contents = input.contents()?;
    let mut rows = HashMap::new();
    while let Some(block) = input.optional_byte()? {
        let id = input.integer()?;
        if !contents.promised.remove(&id) {
            return Err(input.malformed(&format!(
                "a block of the entry {id}, which has none or had one already"
            )));
        }
        match block {
            BLOCK_DATA => {
                let counted = input.data(contents.copies.contains_key(&id))?;
                rows.insert(id, counted);
            }
            BLOCK_LARGE_OBJECTS => input.large_objects()?,
            other => return Err(input.malformed(&format!("a block of type {other}"))),
        }
    }
    if !contents.promised.is_empty() {
        let missing = contents.promised.len();
        return Err(input.malformed(&format!(
            "the end, but {missing} promised blocks are missing"
        )));
    }
    Ok(contents.into_archive(&rows))
}

/// What the table of contents says.
#[derive(Default)]
struct Contents {
    /// Ids of the entries whose block has not come yet.
    promised: HashSet<i64>,
    /// The `TABLE DATA` entries, by id: the table, and whether its rows stay in it.
    copies: HashMap<i64, (Name, bool)>,
    relations: Vec<(Name, RelationKind)>,
}

/// Schema and name.
type Name = (String, String);

impl Contents {
    fn into_archive(self, rows: &HashMap<i64, u64>) -> Archive {
        let counts: HashMap<&Name, u64> = self
            .copies
            .iter()
            .filter(|(_, (_, stays))| *stays)
            .map(|(id, (name, _))| (name, rows.get(id).copied().unwrap_or(0)))
            .collect();
        let mut archive = Archive::default();
        // Data without a table are those of an extension's configuration table: the extension brings rows too.
        for (name, kind) in self.relations {
            let rows = counts.get(&name).filter(|_| kind == RelationKind::Table);
            let (schema, name) = name.clone();
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
}

fn relation_kind(description: &[u8]) -> Option<RelationKind> {
    match description {
        b"TABLE" => Some(RelationKind::Table),
        b"VIEW" => Some(RelationKind::View),
        b"MATERIALIZED VIEW" => Some(RelationKind::MaterializedView),
        b"SEQUENCE" => Some(RelationKind::Sequence),
        b"FOREIGN TABLE" => Some(RelationKind::ForeignTable),
        _ => None,
    }
}

impl Input<'_> {
    /// Reads the header and the table of contents.
    fn contents(&mut self) -> Result<Contents> {
        let version = self.header()?;
        let count = self.integer()?;
        let mut contents = Contents::default();
        for _ in 0..count {
            self.entry(version, &mut contents)?;
        }
        Ok(contents)
    }

    fn header(&mut self) -> Result<Version> {
        let mut magic = [0; 5];
        for byte in &mut magic {
            *byte = self.byte()?;
        }
        if &magic != b"PGDMP" {
            return Err(self.malformed("no beginning of an archive"));
        }
        let version = (self.byte()?, self.byte()?);
        self.byte()?;
        if !(OLDEST..=NEWEST).contains(&version) {
            let (major, minor) = version;
            let problem = format!(
                "format version {major}.{minor}, which this agent does not know: deploy a newer Rekindle"
            );
            return Err(self.malformed(&problem));
        }
        self.int_size = self.byte()?;
        self.offset_size = self.byte()?;
        if !(1..=8).contains(&self.int_size) || !(1..=8).contains(&self.offset_size) {
            return Err(self.malformed("numbers of an impossible size"));
        }
        if self.byte()? != 1 {
            return Err(self.malformed("another format than the custom one"));
        }
        let compressed = if version >= (1, 15) {
            i64::from(self.byte()?)
        } else {
            self.integer()?
        };
        if compressed != 0 {
            return Err(self.malformed("compressed data, although none was asked for"));
        }
        // The time of the dump: seconds, minutes, hours, day, month, year, daylight saving.
        for _ in 0..7 {
            self.integer()?;
        }
        // The database's name, the server's version, pg_dump's version.
        for _ in 0..3 {
            self.skip_text()?;
        }
        Ok(version)
    }

    fn entry(&mut self, version: Version, contents: &mut Contents) -> Result<()> {
        let id = self.integer()?;
        let has_data = self.integer()? != 0;
        self.skip_text()?; // oid of the catalog
        self.skip_text()?; // oid of the object
        let tag = self.text()?;
        let description = self.text()?.unwrap_or_default();
        self.integer()?; // section
        let through_root = self.text_begins_with(THROUGH_ROOT)?;
        self.skip_text()?; // statement that drops it
        self.skip_text()?; // COPY statement
        let schema = self.text()?;
        self.skip_text()?; // tablespace
        if version >= (1, 14) {
            self.skip_text()?; // table access method
        }
        if version >= (1, 16) {
            self.integer()?; // kind of relation
        }
        self.skip_text()?; // owner
        self.skip_text()?; // WITH OIDS
        // Dependencies, to the first that is none.
        while self.skip_text()? {}
        self.byte()?; // whether there is an offset
        self.skip(u64::from(self.offset_size))?;

        if has_data && !contents.promised.insert(id) {
            return Err(self.malformed(&format!("two entries with the id {id}")));
        }
        let kind = relation_kind(&description);
        let is_copy = has_data && description == b"TABLE DATA";
        if kind.is_none() && !is_copy {
            return Ok(());
        }
        let (Some(schema), Some(tag)) = (schema, tag) else {
            return Ok(());
        };
        let (schema, tag) = (encoding::decode(&schema), encoding::decode(&tag));
        if is_copy {
            contents.copies.insert(id, ((schema, tag), !through_root));
        } else if let Some(kind) = kind {
            contents.relations.push(((schema, tag), kind));
        }
        Ok(())
    }

    /// Reads one block; where it holds a table's rows, counts them. A row is a line, for COPY writes a line
    /// break within a value as `\n`.
    ///
    /// `pg_dump` writes each row as a piece of its own. So what is at hand is gone through without asking for more.
    fn data(&mut self, is_copy: bool) -> Result<u64> {
        let head = 1 + usize::from(self.int_size);
        let mut lines = 0;
        let mut tail = Tail::default();
        let mut left: u64 = 0;
        loop {
            if left == 0 {
                let length = self.integer()?;
                let Ok(length) = u64::try_from(length) else {
                    return Err(self.malformed("a piece of negative length"));
                };
                if length == 0 {
                    break;
                }
                left = length;
            }
            let at_hand = self.reader.fill_buf().map_err(ArchiveError::Read)?;
            if at_hand.is_empty() {
                return Err(self.malformed("the end within a block"));
            }
            let mut used = 0;
            loop {
                let rest = &at_hand[used..];
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                let piece = &rest[..length];
                if is_copy {
                    lines += memchr::memchr_iter(b'\n', piece).count() as u64;
                    tail.push(piece);
                }
                used += length;
                left -= length as u64;
                // Another piece follows here, of a length that needs no second look.
                let next = at_hand.get(used..used + head).filter(|_| left == 0);
                match next.and_then(plain_length) {
                    Some(length) => {
                        used += head;
                        left = length;
                    }
                    None => break,
                }
            }
            self.reader.consume(used);
            self.at += used as u64;
        }
        if !is_copy {
            return Ok(0);
        }
        if !tail.is(END_OF_COPY) {
            return Err(self.malformed("rows without the mark after the last one"));
        }
        Ok(lines - memchr::memchr_iter(b'\n', END_OF_COPY).count() as u64)
    }

    fn large_objects(&mut self) -> Result<()> {
        while self.integer()? != 0 {
            self.data(false)?;
        }
        Ok(())
    }
}

/// The last bytes of a stream that comes in pieces.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, piece: &[u8]) {
        let kept = &piece[piece.len().saturating_sub(END_OF_COPY.len())..];
        if kept.len() == END_OF_COPY.len() {
            self.0.clear();
        }
        self.0.extend_from_slice(kept);
        let surplus = self.0.len().saturating_sub(END_OF_COPY.len());
        if surplus > 0 {
            self.0.drain(..surplus);
        }
    }

    fn is(&self, bytes: &[u8]) -> bool {
        self.0 == bytes
    }
}

#[cfg(test)]
mod tests;
