//! The start of backups, for ticks and for operators' requests: `snapshot` reads AWS, `decide` decides, `send` sends.

pub mod decide;
pub(crate) mod send;
pub(crate) mod snapshot;

use shared::command::{BackupCommand, Purpose};
use shared::id::BackupId;
use shared::operation::Operation;

/// Returns the command for a scheduled, manual or adopting backup. Its operation has the backup's id.
pub(crate) fn command(backup_id: BackupId, purpose: Purpose) -> BackupCommand {
    BackupCommand {
        operation_id: Operation::Backup(backup_id.clone()),
        backup_id,
        purpose,
    }
}
