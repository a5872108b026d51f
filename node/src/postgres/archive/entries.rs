//! Reads the statements of single entries, so that they can be tried again.

use std::collections::BTreeSet;
use std::io::{BufReader, Read};

use super::error::Result;
use super::input::Input;
use super::table_of_contents::{Fields, header};
use crate::postgres::encoding;

/// The kinds of entries that are about another object.
const ABOUT_OBJECTS: [&str; 4] = ["ACL", "COMMENT", "DEFAULT ACL", "SECURITY LABEL"];

/// An entry of an archive: one object, or one property of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The kind of object, such as `INDEX`.
    pub(crate) kind: String,
    /// The object's schema, if it has one.
    pub(crate) schema: Option<String>,
    /// The object's name. For rights, comments and labels, it begins with the kind of object that they are about.
    pub(crate) tag: String,
    /// The object's owner, if it has one.
    pub(crate) owner: Option<String>,
    /// The tablespace, if it is not the database's own.
    pub(crate) tablespace: Option<String>,
    /// The statements that create it. Empty for rows.
    pub(crate) definition: String,
    /// The statement that drops it, such as `DROP TABLE public.orders;`. Empty if there is none.
    pub(crate) drop: String,
}

/// Returns the entries with these numbers, in the order of the archive. Reads up to the end of the table of contents.
pub(crate) fn entries(archive: impl Read, numbers: &BTreeSet<i64>) -> Result<Vec<Entry>> {
    let mut reader = BufReader::new(archive);
    let mut input = Input::new(&mut reader);
    let version = header(&mut input)?;
    let count = input.integer()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let fields = Fields::read(&mut input, version, Some(numbers))?;
        if numbers.contains(&fields.id) {
            entries.push(Entry::new(fields));
        }
    }
    Ok(entries)
}

impl Entry {
    /// Returns the object's name with its schema. It is for people, so it is not quoted.
    pub(crate) fn name(&self) -> String {
        let Self {
            kind, schema, tag, ..
        } = self;
        match schema {
            Some(schema) if ABOUT_OBJECTS.contains(&kind.as_str()) => {
                format!("{tag} in schema {schema}")
            }
            Some(schema) => format!("{schema}.{tag}"),
            None => tag.clone(),
        }
    }

    fn new(fields: Fields) -> Self {
        let text = |field: Option<Vec<u8>>| encoding::decode(&field.unwrap_or_default());
        let filled = |field| Some(text(field)).filter(|text| !text.is_empty());
        Self {
            kind: encoding::decode(&fields.description),
            schema: filled(fields.schema),
            tag: text(fields.tag),
            owner: filled(fields.owner),
            tablespace: filled(fields.tablespace),
            definition: text(fields.definition),
            drop: text(fields.drop),
        }
    }
}
