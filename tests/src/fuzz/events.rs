//! The events and requests of the functions.

use backup::tick::decide;
use serde_json::Value;
use shared::event::{Event, Request};
use shared::id::BackupId;
use shared::operation::Operation;
use time::OffsetDateTime;
use time::macros::datetime;

use super::names::assert_harmless;

const NOW: OffsetDateTime = datetime!(2026-11-23 02:15:30 UTC);

/// Every accepted event has harmless names of instances, commands and applications, and times from which a backup id can
/// be made.
pub(super) fn event(input: &[u8]) {
    // The runtime parses the JSON before the function sees it.
    let Ok(payload) = serde_json::from_slice::<Value>(input) else {
        return;
    };
    let Ok(event) = Event::parse(payload) else {
        return;
    };
    if let Some(application) = event.application() {
        assert_harmless(application.as_str());
    }
    match event {
        Event::Tick { scheduled } => {
            let backup = named_after(scheduled);
            if decide::reason_to_skip(scheduled, NOW).is_none() {
                assert!((backup.time() - NOW).abs() < time::Duration::HOUR);
            }
        }
        Event::CommandFinished(status) => {
            assert_harmless(status.command_id.as_str().trim_start_matches('-'));
            assert_harmless(status.instance_id.as_str());
        }
        Event::InstanceLaunching(action) | Event::InstanceTerminating(action) => {
            assert_harmless(action.instance_id.as_str());
            let operation = Operation::FinalBackup(action.instance_id.clone());
            let again = operation.to_string().parse();
            assert_eq!(again, Ok(operation), "{action:?} has no final backup");
        }
        Event::Request(Request::Sweep) => unreachable!("a sweep is an event of its own"),
        Event::Request(Request::RestoreBackup {
            backup_id, before, ..
        }) => {
            let named = before.map(named_after).or(backup_id);
            if let Some(backup) = named {
                assert_harmless(backup.as_str());
            }
        }
        Event::Request(_) | Event::Sweep => {}
    }
}

/// Returns the backup id of a time from outside, as the functions make it.
fn named_after(time: OffsetDateTime) -> BackupId {
    let backup = BackupId::at(time);
    assert_eq!(backup.as_str().parse(), Ok(backup.clone()));
    backup
}
