//! Whether a complete backup may become its application's newest, or is kept aside until an operator accepts it.
//!
//! A backup that is whole can still be the wrong one: of a node that has a successor by now, of an application that
//! was started empty, of a database that was emptied. What restores go on from must continue what they went on from.

#[cfg(test)]
mod tests;

use std::fmt;

use shared::command::Purpose;
use shared::id::{BackupId, InstanceId};
use shared::manifest::{Index, Lineage};

/// What the guard looks at in a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The backup.
    pub backup_id: BackupId,
    /// Why it was taken.
    pub purpose: Purpose,
    /// The instance that it was taken from.
    pub instance_id: InstanceId,
    /// The Postgres cluster there.
    pub system_identifier: String,
    /// How the node came by its data.
    pub lineage: Lineage,
    /// Rows in its counted tables.
    pub rows: u64,
    /// Its counted tables.
    pub tables: u64,
    /// Its bytes in S3.
    pub bytes: u64,
}

impl From<&Index> for Profile {
    fn from(index: &Index) -> Self {
        Self {
            backup_id: index.backup_id.clone(),
            purpose: index.purpose,
            instance_id: index.node.instance_id.clone(),
            system_identifier: index.node.system_identifier.clone(),
            lineage: index.node.lineage.clone(),
            rows: index.rows(),
            tables: index.tables(),
            bytes: index.bytes(),
        }
    }
}

impl Profile {
    /// Tells whether two backups were taken from the same node, which has come by its data once.
    fn is_of_same_node(&self, other: &Self) -> bool {
        self.is_of_same_cluster(other) && self.lineage == other.lineage
    }

    fn is_of_same_cluster(&self, other: &Self) -> bool {
        (&self.instance_id, &self.system_identifier)
            == (&other.instance_id, &other.system_identifier)
    }
}

/// What a new backup is held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Predecessor {
    /// The application has no older committed backup.
    None,
    /// The newest of those whose manifest can be read.
    Newest(Profile),
    /// There are some, and none of their manifests can be read.
    Unreadable(String),
}

/// Why a backup is kept aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// Another member of the group was given the application's data: that one holds the truth now.
    Superseded {
        /// The member.
        by: InstanceId,
    },
    /// It does not continue the newest backup.
    OtherLineage {
        /// How its node came by its data.
        lineage: Lineage,
        /// The newest backup.
        newest: BackupId,
    },
    /// It holds less than half of what its predecessor held.
    LostMost {
        /// Of what: rows, tables or bytes.
        what: &'static str,
        /// How many it has.
        now: u64,
        /// How many its predecessor has.
        before: u64,
        /// The predecessor.
        reference: BackupId,
    },
    /// What it continues cannot be read, so that nothing can be said.
    ReferenceUnreadable {
        /// What is wrong with it.
        problem: String,
    },
}

impl Doubt {
    /// Returns the stable word: the `kind` of the failure metric.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Superseded { .. } => "QuarantinedSuperseded",
            Self::OtherLineage { .. } => "QuarantinedLineage",
            Self::LostMost { .. } => "QuarantinedLoss",
            Self::ReferenceUnreadable { .. } => "QuarantinedUnknown",
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superseded { by } => write!(
                f,
                "{by} was restored from an earlier backup meanwhile, and holds the application's data now"
            ),
            Self::OtherLineage { lineage, newest } => {
                match lineage {
                    Lineage::Restored { backup_id, .. } => {
                        write!(f, "its node was restored from {backup_id}")
                    }
                    Lineage::FirstBoot => f.write_str("its node was started empty"),
                    Lineage::Adopted => f.write_str("its node was adopted"),
                }?;
                write!(
                    f,
                    ", and the application's newest backup {newest} is another's"
                )
            }
            Self::LostMost {
                what,
                now,
                before,
                reference,
            } => write!(f, "it has {now} {what}, and {reference} had {before}"),
            Self::ReferenceUnreadable { problem } => {
                write!(f, "what it should continue cannot be read: {problem}")
            }
        }
    }
}

/// Says which backup a new one continues, so that [`compare`] can hold it against that; none where there is nothing
/// that it could have lost.
pub fn continues(new: &Profile, predecessor: &Predecessor) -> Result<Option<BackupId>, Doubt> {
    // An operator has said that this node's data are the truth.
    if new.purpose == Purpose::Adopt {
        return Ok(None);
    }
    let newest = match predecessor {
        Predecessor::None => return Ok(None),
        Predecessor::Unreadable(problem) => {
            let problem = problem.clone();
            return Err(Doubt::ReferenceUnreadable { problem });
        }
        Predecessor::Newest(newest) => newest,
    };
    if new.is_of_same_node(newest) {
        return Ok(Some(newest.backup_id.clone()));
    }
    match &new.lineage {
        // A replacement; where the newest was damaged, it was passed over with a report of that. On the same cluster,
        // an operator restored a chosen backup in place.
        Lineage::Restored { backup_id, skipped }
            if *backup_id == newest.backup_id
                || skipped.contains(&newest.backup_id)
                || new.is_of_same_cluster(newest) =>
        {
            Ok(Some(backup_id.clone()))
        }
        lineage => Err(Doubt::OtherLineage {
            lineage: lineage.clone(),
            newest: newest.backup_id.clone(),
        }),
    }
}

/// Holds a new backup against the one that it continues.
pub fn compare(new: &Profile, reference: &Profile) -> Result<(), Doubt> {
    let counts = [
        ("rows", new.rows, reference.rows),
        ("tables", new.tables, reference.tables),
        ("bytes", new.bytes, reference.bytes),
    ];
    let lost = counts
        .into_iter()
        .find(|(_, now, before)| now.saturating_mul(2) < *before);
    match lost {
        Some((what, now, before)) => Err(Doubt::LostMost {
            what,
            now,
            before,
            reference: reference.backup_id.clone(),
        }),
        None => Ok(()),
    }
}
