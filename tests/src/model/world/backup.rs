//! Backup attempts and the manifests that commit them.

use super::command::Purpose;
use super::node::Data;
use super::numbers::{BackupNumber, NodeNumber, RunNumber};

/// The objects that one backup attempt wrote to S3.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the flags are independent, and every combination occurs"
)]
pub struct Run {
    /// The backup.
    pub backup: BackupNumber,
    /// The node that was backed up.
    pub node: NodeNumber,
    /// The backup's purpose.
    pub purpose: Purpose,
    /// The data that the databases really held.
    pub data: Data,
    /// The newer backups that were skipped when the node was restored.
    pub skipped: Vec<BackupNumber>,
    /// Whether most rows had been deleted.
    pub emptied: bool,
    /// Whether the index, and therefore every object, was uploaded.
    pub complete: bool,
    /// Whether every object still has the content that was uploaded.
    pub sound: bool,
    /// Whether the agent recorded its success.
    pub recorded: bool,
}

/// A manifest: it commits a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Manifest {
    /// The attempt that it commits.
    pub run: RunNumber,
    /// Whether it can be read.
    pub readable: bool,
}
