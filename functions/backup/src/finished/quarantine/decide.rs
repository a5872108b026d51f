//! The rules by which a complete backup is committed, or quarantined until an operator accepts it.
//!
//! A complete backup can still be the wrong one: its node may have a successor, its application may have started empty,
//! or its database may have lost its rows. A new backup must continue the data that restores have used until now.

#[cfg(test)]
mod tests;

use std::fmt;

use shared::command::Purpose;
use shared::id::{BackupId, InstanceId};
use shared::kind::Kind;
use shared::manifest::{Index, Lineage};

/// The properties of a backup that the rules compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The backup.
    pub backup_id: BackupId,
    /// The purpose of the backup.
    pub purpose: Purpose,
    /// The instance that it was taken from.
    pub instance_id: InstanceId,
    /// The Postgres cluster there.
    pub system_identifier: String,
    /// The origin of the node's data.
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
    /// Returns whether two backups are of one node, with data of one origin.
    fn is_of_same_node(&self, other: &Self) -> bool {
        self.is_of_same_cluster(other) && self.lineage == other.lineage
    }

    fn is_of_same_cluster(&self, other: &Self) -> bool {
        (&self.instance_id, &self.system_identifier)
            == (&other.instance_id, &other.system_identifier)
    }
}

/// The backup that a new one is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OlderBackup {
    /// The application has no older committed backup.
    None,
    /// The newest older backup with a readable manifest.
    Newest(Profile),
    /// There are older backups, but none of their manifests can be read. The text is the first error.
    Unreadable(String),
}

/// The reason for which a backup is quarantined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuarantineReason {
    /// Another member of the group received the application's data later, so it has the current data.
    Superseded {
        /// The member.
        by: InstanceId,
    },
    /// It does not continue the newest backup.
    OtherLineage {
        /// The origin of its node's data.
        lineage: Lineage,
        /// The newest backup.
        newest: BackupId,
    },
    /// It has less than half of the rows, tables or bytes of the backup that it continues.
    LostMost {
        /// The counted things: rows, tables or bytes.
        what: &'static str,
        /// Its count.
        now: u64,
        /// The count of the backup that it continues.
        before: u64,
        /// The backup that it continues.
        reference: BackupId,
    },
    /// The backup that it continues cannot be read, so it cannot be compared.
    ReferenceUnreadable {
        /// The defect.
        problem: String,
    },
}

impl QuarantineReason {
    /// Returns the kind for the log and the failure metric.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Superseded { .. } => Kind::QuarantinedSuperseded,
            Self::OtherLineage { .. } => Kind::QuarantinedLineage,
            Self::LostMost { .. } => Kind::QuarantinedLoss,
            Self::ReferenceUnreadable { .. } => Kind::QuarantinedUnknown,
        }
    }
}

impl fmt::Display for QuarantineReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superseded { by } => write!(
                f,
                "{by} was restored from an earlier backup in the meantime, and has the application's current data"
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
                    ", but the application's newest backup {newest} is another node's"
                )
            }
            Self::LostMost {
                what,
                now,
                before,
                reference,
            } => write!(f, "it has {now} {what}, and {reference} had {before}"),
            Self::ReferenceUnreadable { problem } => {
                write!(
                    f,
                    "the backup that it should continue cannot be read: {problem}"
                )
            }
        }
    }
}

/// Returns the backup that a new one continues, for [`compare`], or `None` if it need not continue any.
///
/// # Errors
/// The reason for a quarantine, if the new backup does not continue the newest one.
pub fn continues(new: &Profile, older: &OlderBackup) -> Result<Option<BackupId>, QuarantineReason> {
    // An operator declared this node's data to be the current data.
    if new.purpose == Purpose::Adopt {
        return Ok(None);
    }
    let newest = match older {
        OlderBackup::None => return Ok(None),
        OlderBackup::Unreadable(problem) => {
            let problem = problem.clone();
            return Err(QuarantineReason::ReferenceUnreadable { problem });
        }
        OlderBackup::Newest(newest) => newest,
    };
    if new.is_of_same_node(newest) {
        return Ok(Some(newest.backup_id.clone()));
    }
    match &new.lineage {
        // A replacement. If the newest backup was damaged, its restore skipped that one and reported it. On the same
        // cluster, an operator restored a chosen backup in place.
        Lineage::Restored { backup_id, skipped }
            if *backup_id == newest.backup_id
                || skipped.contains(&newest.backup_id)
                || new.is_of_same_cluster(newest) =>
        {
            Ok(Some(backup_id.clone()))
        }
        lineage => Err(QuarantineReason::OtherLineage {
            lineage: lineage.clone(),
            newest: newest.backup_id.clone(),
        }),
    }
}

/// Compares a new backup with the one that it continues.
///
/// # Errors
/// [`QuarantineReason::LostMost`] if less than half of its rows, tables or bytes are left.
pub fn compare(new: &Profile, reference: &Profile) -> Result<(), QuarantineReason> {
    let counts = [
        ("rows", new.rows, reference.rows),
        ("tables", new.tables, reference.tables),
        ("bytes", new.bytes, reference.bytes),
    ];
    let lost = counts
        .into_iter()
        .find(|(_, now, before)| now.saturating_mul(2) < *before);
    match lost {
        Some((what, now, before)) => Err(QuarantineReason::LostMost {
            what,
            now,
            before,
            reference: reference.backup_id.clone(),
        }),
        None => Ok(()),
    }
}
