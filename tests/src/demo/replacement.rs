//! The result of one replacement of a node.

use std::collections::BTreeMap;
use std::time::Duration;

/// The result of one replacement of a node.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// The number of rows that were compared.
    pub rows: usize,
    /// The number of rows that differ, by table; empty if all rows are equal.
    pub different_rows: BTreeMap<String, usize>,
    /// The number of files that were compared.
    pub files: usize,
    /// The files that differ.
    pub different_files: Vec<String>,
    /// The age of the restored data when the node was lost: the measured RPO.
    pub data_loss: Duration,
    /// The time from the loss, or from the request to terminate, to `InService`: the measured RTO.
    pub outage: Duration,
    /// The events of the replacement, with their time since the loss or since the request to terminate.
    pub timeline: Vec<(String, Duration)>,
    /// The time that the agent on the new node worked.
    pub node_work: Duration,
    /// The time from the moment at which the restore could start (the SSM agent was registered and the predecessor's
    /// final backup was committed) to `InService`, without the node's work.
    pub orchestration: Duration,
}

impl Replacement {
    /// Returns whether every row and every file is equal.
    pub fn is_faithful(&self) -> bool {
        self.different_rows.is_empty() && self.different_files.is_empty()
    }
}
