//! What SSM knows of a node's restore, and the timeline that it makes.

use std::time::Duration;

use shared::report::RestoreReport;
use time::OffsetDateTime;

/// What SSM knows of a restore.
pub(super) struct Restore {
    pub(super) report: RestoreReport,
    pub(super) registered_at: OffsetDateTime,
    pub(super) requested_at: OffsetDateTime,
}

impl Restore {
    pub(super) fn work(&self) -> Duration {
        Duration::from_secs_f64(self.report.seconds)
    }

    pub(super) fn timeline(
        &self,
        from: OffsetDateTime,
        first: &str,
        to: OffsetDateTime,
    ) -> Vec<(String, Duration)> {
        let done = self.requested_at + self.work();
        [
            (first, from),
            ("replacement registered with SSM", self.registered_at),
            ("restore command sent", self.requested_at),
            ("restore done", done),
            ("in service", to),
        ]
        .map(|(what, at)| (what.to_owned(), between(from, at)))
        .into()
    }
}

/// Returns the time from one moment to another; nothing where they are the other way round.
pub(super) fn between(from: OffsetDateTime, to: OffsetDateTime) -> Duration {
    (to - from).max(time::Duration::ZERO).unsigned_abs()
}
