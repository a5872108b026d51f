//! Conversions between the model's numbers and the names that the shipped code reads.

use shared::id::{ApplicationName, BackupId, CommandId, InstanceId, RunId};
use shared::operation::Operation;
use shared::{budget, id};
use time::{Duration, OffsetDateTime};

use super::command::Purpose;
use super::numbers::{BackupNumber, CommandNumber, NodeNumber, RunNumber};

/// The time in the id of the model's first recent backup.
const BEGINNING: OffsetDateTime = time::macros::datetime!(2026-11-23 02:00:00 UTC);

/// How many backups are so old that retention may delete them.
pub(in crate::model) const OLD: BackupNumber = 3;
/// The additional age of those old backups.
const AGE: Duration = Duration::days(60);

/// Parses a name that the model itself generated.
fn name<T: std::str::FromStr<Err = id::MalformedName>>(text: &str) -> T {
    match text.parse() {
        Ok(name) => name,
        Err(error) => unreachable!("{error}"),
    }
}

/// Returns the name of the only application.
pub(in crate::model) fn application() -> ApplicationName {
    name("dtr")
}

/// Returns the id of an instance.
pub(in crate::model) fn instance(node: NodeNumber) -> InstanceId {
    name(&format!("i-{node:08x}"))
}

/// Returns the number of an instance.
pub(in crate::model) fn node(instance: &InstanceId) -> NodeNumber {
    number(instance.as_str().trim_start_matches("i-"))
}

/// Returns the id of a command.
pub(in crate::model) fn command_id(command: CommandNumber) -> CommandId {
    name(&format!("{command:08x}-0000-0000-0000-000000000000"))
}

/// Returns the number of a command.
pub(in crate::model) fn command(id: &CommandId) -> CommandNumber {
    number(&id.as_str()[..8])
}

/// Returns the run id of a backup attempt.
pub(in crate::model) fn run_id(run: RunNumber) -> RunId {
    name(&format!("{run:08x}"))
}

/// Returns the number of a backup attempt.
pub(in crate::model) fn run(id: &RunId) -> RunNumber {
    number(id.as_str())
}

/// Returns the id of a backup. Backups are one schedule interval apart.
pub(in crate::model) fn backup_id(backup: BackupNumber) -> BackupId {
    BackupId::at(requested_at(backup))
}

/// Returns the number of a backup.
pub(in crate::model) fn backup(id: &BackupId) -> BackupNumber {
    let since = id.time() - BEGINNING;
    let since = if since.is_negative() {
        since + AGE
    } else {
        since
    };
    let intervals = since.whole_seconds() / i64::from(budget::SCHEDULE);
    u8::try_from(intervals).unwrap_or(u8::MAX)
}

/// Returns the time at which a backup was requested.
pub(in crate::model) fn requested_at(backup: BackupNumber) -> OffsetDateTime {
    let requested_at =
        BEGINNING + Duration::seconds(i64::from(budget::SCHEDULE)) * i32::from(backup);
    if backup < OLD {
        requested_at - AGE
    } else {
        requested_at
    }
}

/// Returns the operation id of a backup.
pub(in crate::model) fn backup_operation(
    node: NodeNumber,
    backup: BackupNumber,
    purpose: Purpose,
) -> Operation {
    match purpose {
        Purpose::Final => Operation::FinalBackup(instance(node)),
        Purpose::Scheduled | Purpose::Adopt => Operation::Backup(backup_id(backup)),
    }
}

/// Returns the operation id of a launch restore, as the restore function and its sweep both derive it.
pub(in crate::model) fn launch_operation(node: NodeNumber) -> Operation {
    Operation::LaunchRestore(instance(node))
}

fn number(hexadecimal: &str) -> u8 {
    u8::from_str_radix(hexadecimal, 16).unwrap_or(u8::MAX)
}
