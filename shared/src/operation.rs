//! The operation of a command, and its id.
//!
//! SSM may deliver a command twice, and the functions may send one twice. The agent runs an operation once and then
//! repeats its report. Every sender derives the same id from the same facts, so the senders need no shared state.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{BackupId, InstanceId};

/// The operation of a command on one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Operation {
    /// A scheduled, manual or adopting backup. The operation's id is the backup's.
    Backup(BackupId),
    /// The final backup of an instance: `final-<instance>`.
    FinalBackup(InstanceId),
    /// The backup that precedes an in-place restore: `before-in-place-<chosen>-<before>`.
    PreRestoreBackup(InPlace),
    /// The restore of a launching instance: `launch-<instance>`.
    LaunchRestore(InstanceId),
    /// An in-place restore: `in-place-<chosen>-<before>`.
    InPlaceRestore(InPlace),
}

/// An in-place restore that an operator requested. The operation of the backup before it has the same two ids, so the
/// restore function finds the requested restore in the list of finished backups.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InPlace {
    /// The backup to restore.
    pub chosen: BackupId,
    /// The backup of the node's current data, taken before the restore.
    pub before: BackupId,
}

const FINAL: &str = "final-";
const LAUNCH: &str = "launch-";
const IN_PLACE: &str = "in-place-";
const BEFORE_IN_PLACE: &str = "before-in-place-";

impl Operation {
    /// Returns whether a final backup preempts this operation: ends it to run at once. This loses nothing, because the
    /// final backup is newer.
    pub fn can_be_preempted(&self) -> bool {
        matches!(self, Self::Backup(_))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backup(backup) => backup.fmt(f),
            Self::FinalBackup(instance) => write!(f, "{FINAL}{instance}"),
            Self::PreRestoreBackup(restore) => write!(f, "{BEFORE_IN_PLACE}{restore}"),
            Self::LaunchRestore(instance) => write!(f, "{LAUNCH}{instance}"),
            Self::InPlaceRestore(restore) => write!(f, "{IN_PLACE}{restore}"),
        }
    }
}

impl fmt::Display for InPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.chosen, self.before)
    }
}

/// The error of a text that is not the id of an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "operation {0:?} is none of <backup id>, final-<instance>, launch-<instance>, in-place-<backup id>-<backup id>, \
     before-in-place-<backup id>-<backup id>"
)]
pub struct MalformedOperation(String);

impl FromStr for Operation {
    type Err = MalformedOperation;

    fn from_str(text: &str) -> Result<Self, MalformedOperation> {
        let parsed = if let Some(rest) = text.strip_prefix(FINAL) {
            rest.parse().ok().map(Self::FinalBackup)
        } else if let Some(rest) = text.strip_prefix(LAUNCH) {
            rest.parse().ok().map(Self::LaunchRestore)
        } else if let Some(rest) = text.strip_prefix(IN_PLACE) {
            in_place(rest).map(Self::InPlaceRestore)
        } else if let Some(rest) = text.strip_prefix(BEFORE_IN_PLACE) {
            in_place(rest).map(Self::PreRestoreBackup)
        } else {
            text.parse().ok().map(Self::Backup)
        };
        // A text from outside may be megabytes long; the message has its beginning.
        parsed.ok_or_else(|| MalformedOperation(text.chars().take(80).collect()))
    }
}

fn in_place(text: &str) -> Option<InPlace> {
    let (chosen, before) = text.split_once('-')?;
    Some(InPlace {
        chosen: chosen.parse().ok()?,
        before: before.parse().ok()?,
    })
}

impl TryFrom<String> for Operation {
    type Error = MalformedOperation;

    fn try_from(text: String) -> Result<Self, MalformedOperation> {
        text.parse()
    }
}

impl From<Operation> for String {
    fn from(operation: Operation) -> Self {
        operation.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_operation_is_read_back_from_its_id() {
        let ids = [
            "20261123T021500.000Z",
            "final-i-0123abcd",
            "launch-i-0123abcd",
            "in-place-20261123T021500.000Z-20261123T023000.000Z",
            "before-in-place-20261123T021500.000Z-20261123T023000.000Z",
        ];
        for id in ids {
            let operation: Operation = id.parse().unwrap();
            assert_eq!(operation.to_string(), id);
            assert!(id.len() <= 64, "the document allows 64 characters: {id}");
        }
    }

    #[test]
    fn malformed_ids_are_refused() {
        for text in ["", "launch-", "launch-x", "final-../x", "in-place-x", "-"] {
            let error = text.parse::<Operation>().unwrap_err();
            assert!(error.to_string().contains("is none of"), "{error}");
        }
    }

    #[test]
    fn only_a_backup_outside_a_restore_can_be_preempted() {
        let preempted = |id: &str| id.parse::<Operation>().unwrap().can_be_preempted();
        assert!(preempted("20261123T021500.000Z"));
        assert!(!preempted("final-i-0123abcd"));
        assert!(!preempted("launch-i-0123abcd"));
        assert!(!preempted(
            "before-in-place-20261123T021500.000Z-20261123T023000.000Z"
        ));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*") {
            if let Ok(operation) = text.parse::<Operation>() {
                prop_assert_eq!(operation.to_string(), text);
            }
        }
    }
}
