//! How fast the stand-in's time runs: AWS's waits are divided by one factor, so that a test need not wait
//! half a minute for a connection to drain. What a node does is real work and takes real time.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// The factor by which AWS's waits are shortened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clock {
    scale: f64,
}

impl Clock {
    /// Divides every wait by `scale`; values that are not above zero count as 1.
    pub fn scaled(scale: f64) -> Self {
        let scale = if scale.is_finite() && scale > 0.0 {
            scale
        } else {
            1.0
        };
        Self { scale }
    }

    /// Returns how long AWS's `seconds` last here.
    pub fn wait(self, seconds: f64) -> Duration {
        Duration::from_secs_f64((seconds / self.scale).clamp(0.0, 1e9))
    }

    /// Returns the moment that lies AWS's `seconds` after `start`.
    pub fn after(self, start: OffsetDateTime, seconds: f64) -> OffsetDateTime {
        start + self.wait(seconds)
    }
}

/// Returns the wall clock's time.
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

const MILLISECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
const SECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

/// Writes a time as `2026-11-23T02:15:00.000Z`.
pub fn milliseconds(time: OffsetDateTime) -> String {
    time.format(MILLISECONDS).unwrap_or_default()
}

/// Writes a time as `2026-11-23T02:15:00Z`.
pub fn whole_seconds(time: OffsetDateTime) -> String {
    time.format(SECONDS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_divided_and_nonsense_is_real_time() {
        assert_eq!(Clock::scaled(60.0).wait(30.0), Duration::from_millis(500));
        for nonsense in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Clock::scaled(nonsense).wait(30.0), Duration::from_secs(30));
        }
    }

    #[test]
    fn times_are_written_as_aws_writes_them() {
        let time = time::macros::datetime!(2026-11-23 02:15:00.25 UTC);
        assert_eq!(milliseconds(time), "2026-11-23T02:15:00.250Z");
        assert_eq!(whole_seconds(time), "2026-11-23T02:15:00Z");
    }
}
