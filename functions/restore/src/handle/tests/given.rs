//! An AWS for tests: its state when an event arrives, and a journal of the changes that a function makes.

mod autoscaling;
mod s3;
mod ssm;

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use shared::aws::{Aws, lazy};

pub(super) const INSTANCE: &str = "i-0123456789abcdef0";
pub(super) const OLD_INSTANCE: &str = "i-0fedcba9876543210";
pub(super) const COMMAND: &str = "00000000-0000-4000-8000-000000000001";
pub(super) const BACKUP: &str = "20261123T021500.000Z";

/// The state of AWS when an event arrives.
#[derive(Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact about AWS that is independent of the others"
)]
pub(super) struct Given {
    /// The lifecycle state of the instance.
    pub(super) state: &'static str,
    /// The value of the group's tag `rekindle:application`.
    pub(super) tag: Option<&'static str>,
    /// The lifecycle state of another member of the group.
    pub(super) predecessor: Option<&'static str>,
    /// The health of the group's members.
    pub(super) health: &'static str,
    /// Another group with the same tag, which has an instance.
    pub(super) other_group: bool,
    /// Whether the SSM agent of the instance is registered.
    pub(super) registered: bool,
    /// The status and output of a restore that was sent before.
    pub(super) sent_before: Option<(&'static str, String)>,
    /// The committed backups, newest first.
    pub(super) backups: &'static [&'static str],
    /// S3 denies every listing.
    pub(super) listing_denied: bool,
    /// S3 answers `SlowDown` to every listing.
    pub(super) listing_slow: bool,
    /// Whether the application's state parameter exists.
    pub(super) parameter: bool,
    /// SSM refuses commands for the instance.
    pub(super) refuses_command: bool,
    /// The launch hook was answered before.
    pub(super) answered_before: bool,
    /// How many launches failed right before this one.
    pub(super) failed_before: u8,
    /// The group's launches are suspended.
    pub(super) suspended: bool,
    /// The record of the group's breaker.
    pub(super) breaker: Option<Value>,
    /// The error code with which AWS refuses to suspend anything.
    pub(super) refuses_to_suspend: Option<&'static str>,
    /// An operator closes the breaker while a suspension is throttled.
    pub(super) closed_meanwhile: bool,
    /// How many minutes ago the launch began.
    pub(super) minutes: u64,
}

/// A protected instance that is ready for its restore.
pub(super) fn ready() -> Given {
    Given {
        state: "Pending:Wait",
        tag: Some("dtr"),
        predecessor: None,
        health: "Healthy",
        other_group: false,
        registered: true,
        sent_before: None,
        backups: &[BACKUP],
        listing_denied: false,
        listing_slow: false,
        parameter: true,
        refuses_command: false,
        answered_before: false,
        failed_before: 0,
        suspended: false,
        breaker: None,
        refuses_to_suspend: None,
        closed_meanwhile: false,
        minutes: 1,
    }
}

/// The changes that were made to AWS, in their order.
pub(super) type Journal = Arc<Mutex<Vec<String>>>;

/// The value of the breakers' parameter.
type Record = Arc<Mutex<Option<Value>>>;

fn breakers(breaker: &Value) -> Value {
    json!({"schema_version": 1, "groups": {"dtr": breaker}})
}

fn write(journal: &Journal, entry: impl Into<String>) {
    journal.lock().unwrap().push(entry.into());
}

impl Given {
    /// Returns the clients of this AWS. They write each change to the journal.
    pub(super) fn clients(&self, journal: &Journal) -> Aws {
        let record: Record = Arc::new(Mutex::new(self.breaker.as_ref().map(breakers)));
        let autoscaling = autoscaling::client(self, journal, &record);
        let (ssm, s3) = (ssm::client(self, journal, &record), s3::client(self));
        Aws {
            autoscaling: lazy(|| autoscaling),
            ssm: lazy(|| ssm),
            s3: lazy(|| s3),
        }
    }
}
