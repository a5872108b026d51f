//! What the model's numbers are called where the shipped code reads them.

use shared::id::{ApplicationName, BackupId, CommandId, InstanceId, OperationId, RunId};
use shared::{budget, id};
use time::{Duration, OffsetDateTime};

use super::world::{BackupNumber, CommandNumber, NodeNumber, Purpose, RunNumber};

/// When the model's first backup is named.
const BEGINNING: OffsetDateTime = time::macros::datetime!(2026-11-23 02:00:00 UTC);

/// So many backups are older than retention keeps every one.
pub(super) const OLD: BackupNumber = 3;
/// How much older.
const AGE: Duration = Duration::days(60);

/// Parses a name that the model itself has made.
fn name<T: std::str::FromStr<Err = id::MalformedName>>(text: &str) -> T {
    match text.parse() {
        Ok(name) => name,
        Err(error) => unreachable!("{error}"),
    }
}

/// Names the one application.
pub(super) fn application() -> ApplicationName {
    name("dtr")
}

/// Names an instance.
pub(super) fn instance(node: NodeNumber) -> InstanceId {
    name(&format!("i-{node:08x}"))
}

/// Returns the number of an instance.
pub(super) fn node(instance: &InstanceId) -> NodeNumber {
    number(instance.as_str().trim_start_matches("i-"))
}

/// Names a command.
pub(super) fn command_id(command: CommandNumber) -> CommandId {
    name(&format!("{command:08x}-0000-0000-0000-000000000000"))
}

/// Returns the number of a command.
pub(super) fn command(id: &CommandId) -> CommandNumber {
    number(&id.as_str()[..8])
}

/// Names an attempt at a backup.
pub(super) fn run_id(run: RunNumber) -> RunId {
    name(&format!("{run:08x}"))
}

/// Returns the number of an attempt at a backup.
pub(super) fn run(id: &RunId) -> RunNumber {
    number(id.as_str())
}

/// Names a backup: each is asked for one interval after the one before it.
pub(super) fn backup_id(backup: BackupNumber) -> BackupId {
    BackupId::at(asked_at(backup))
}

/// Returns the number of a backup.
pub(super) fn backup(id: &BackupId) -> BackupNumber {
    let since = id.time() - BEGINNING;
    let since = if since.is_negative() {
        since + AGE
    } else {
        since
    };
    let intervals = since.whole_seconds() / i64::from(budget::SCHEDULE);
    u8::try_from(intervals).unwrap_or(u8::MAX)
}

/// Returns when a backup was asked for.
pub(super) fn asked_at(backup: BackupNumber) -> OffsetDateTime {
    let asked_at = BEGINNING + Duration::seconds(i64::from(budget::SCHEDULE)) * i32::from(backup);
    if backup < OLD {
        asked_at - AGE
    } else {
        asked_at
    }
}

/// Names the operation of a backup.
pub(super) fn backup_operation(
    node: NodeNumber,
    backup: BackupNumber,
    purpose: Purpose,
) -> OperationId {
    if purpose == Purpose::Final {
        OperationId::FinalBackup(instance(node))
    } else {
        OperationId::Backup(backup_id(backup))
    }
}

/// Names the operation of a launch, as the restore function and its sweep both do.
pub(super) fn launch_operation(node: NodeNumber) -> OperationId {
    OperationId::LaunchRestore(instance(node))
}

fn number(hexadecimal: &str) -> u8 {
    u8::from_str_radix(hexadecimal, 16).unwrap_or(u8::MAX)
}
