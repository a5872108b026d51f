//! Everything known of one application from outside the product.

use std::collections::{BTreeMap, BTreeSet};

use super::snapshot::Snapshot;

/// A committed backup, as it was when it was first found.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The node that was backed up.
    pub instance: String,
    /// The epoch of the data: the number of writes before the backup.
    pub epoch: u64,
    /// A hash of each of its objects and of its manifest, by key.
    pub objects: BTreeMap<String, String>,
}

/// A node that came into service.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The instance.
    pub instance: String,
    /// The epoch of its data at that time.
    pub epoch: u64,
}

/// The record of one application.
#[derive(Debug, Default)]
pub struct Record {
    /// The node's content after each write, by epoch.
    pub written: BTreeMap<u64, Snapshot>,
    /// Every committed backup that was found, by id.
    pub committed: BTreeMap<String, Committed>,
    /// The backups that the run itself has damaged or made impossible to restore.
    pub unrestorable: BTreeSet<String>,
    /// The copies that the run itself has stored as old backups: retention may delete them.
    pub expendable: BTreeSet<String>,
    /// The nodes that came into service, in order.
    pub arrivals: Vec<Arrival>,
}

impl Record {
    /// Returns the epoch of the newest committed backup that can be restored, or `None` if there is none.
    pub fn newest_good(&self) -> Option<u64> {
        let mut backups = self.committed.iter().rev();
        let good = backups.find(|(id, _)| !self.unrestorable.contains(*id));
        good.map(|(_, backup)| backup.epoch)
    }

    /// Returns the newest epoch.
    pub fn newest_written(&self) -> u64 {
        self.written.keys().next_back().copied().unwrap_or(0)
    }
}
