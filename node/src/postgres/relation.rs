//! The relations of a database, as a dump contains them and as a backup records them.

use serde::{Deserialize, Serialize};

/// A table and its number of rows, as `SELECT count(*) FROM ONLY` returns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableRows {
    /// The table's schema.
    pub(crate) schema: String,
    /// The table's name.
    pub(crate) name: String,
    /// Rows in the dump.
    pub(crate) rows: u64,
}

/// A relation that must exist after a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Relation {
    /// The relation's schema.
    pub(crate) schema: String,
    /// The relation's name.
    pub(crate) name: String,
    /// The relation's kind.
    pub(crate) kind: RelationKind,
}

/// The kind of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RelationKind {
    /// A table without counted rows, such as a partitioned one: `relkind` r or p.
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
    /// Every kind.
    pub(crate) const ALL: [Self; 5] = [
        Self::Table,
        Self::View,
        Self::MaterializedView,
        Self::Sequence,
        Self::ForeignTable,
    ];

    /// Returns the kind's name in a dump's table of contents.
    pub(crate) fn in_dump(self) -> &'static str {
        match self {
            Self::Table => "TABLE",
            Self::View => "VIEW",
            Self::MaterializedView => "MATERIALIZED VIEW",
            Self::Sequence => "SEQUENCE",
            Self::ForeignTable => "FOREIGN TABLE",
        }
    }

    /// Returns whether a relation of this kind has data of its own, which a restore must bring back.
    pub(crate) fn has_data(self) -> bool {
        matches!(self, Self::Table | Self::Sequence)
    }

    /// Returns the values of `pg_class.relkind` that a relation of this kind can have.
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
