//! One node's restore as SSM recorded it, and the timeline of a replacement.

use std::time::Duration;

use shared::report::RestoreReport;
use time::OffsetDateTime;

/// One node's restore: its report, and the times that SSM recorded.
pub(super) struct Restore {
    pub(super) report: RestoreReport,
    pub(super) registered_at: OffsetDateTime,
    pub(super) requested_at: OffsetDateTime,
}

impl Restore {
    /// Returns the time that the agent worked.
    pub(super) fn work(&self) -> Duration {
        Duration::from_secs_f64(self.report.seconds)
    }

    /// Returns the events from `from`, which is named `first`, to `to`, when the node was in service.
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
            ("restore finished", done),
            ("in service", to),
        ]
        .map(|(event, at)| (event.to_owned(), between(from, at)))
        .into()
    }
}

/// Returns the time from `from` to `to`, or zero if `to` is earlier.
pub(super) fn between(from: OffsetDateTime, to: OffsetDateTime) -> Duration {
    (to - from).max(time::Duration::ZERO).unsigned_abs()
}
