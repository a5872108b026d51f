//! Small numbers instead of names, so that millions of states fit into memory.

/// The number of an instance, in the order of launches.
pub type NodeNumber = u8;
/// The number of a command, in the order of `SendCommand`.
pub type CommandNumber = u8;
/// The number of a backup attempt: its run id.
pub type RunNumber = u8;
/// The number of a backup, in the order of backup ids.
pub type BackupNumber = u8;
