//! The decisions as tables, and what no input may make of them; what the tables share.

mod endings;
mod hook;
mod starts;

use proptest::prelude::*;
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-23 02:20:00 UTC);

fn instance(number: u32) -> InstanceId {
    format!("i-{number:08x}").parse().unwrap()
}

fn command_id() -> CommandId {
    "6d2f0f0e-5d0b-4f0a-9b57-0d5b1a3f2c11".parse().unwrap()
}

fn backup_id() -> BackupId {
    "20261123T021500.000Z".parse().unwrap()
}

fn any_status() -> impl Strategy<Value = InvocationStatus> {
    let words = [
        "Pending",
        "InProgress",
        "Success",
        "Failed",
        "TimedOut",
        "Cancelled",
        "Undeliverable",
        "Delivery Timed Out",
    ];
    prop::sample::select(words.to_vec()).prop_map(InvocationStatus::from)
}
