//! The speed of the stand-in's time: AWS's waits are divided by one factor, so that a test does not wait half a minute for
//! a connection to drain. The work of a node is real and takes real time.

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
    /// Returns a clock that divides every wait by `scale`. Values that are not finite or not above zero count as 1.
    pub fn scaled(scale: f64) -> Self {
        let scale = if scale.is_finite() && scale > 0.0 {
            scale
        } else {
            1.0
        };
        Self { scale }
    }

    /// Returns the real duration of `seconds` of AWS's time.
    pub fn wait(self, seconds: f64) -> Duration {
        Duration::from_secs_f64((seconds / self.scale).clamp(0.0, 1e9))
    }

    /// Returns the real time that is `seconds` of AWS's time after `start`.
    pub fn after(self, start: OffsetDateTime, seconds: f64) -> OffsetDateTime {
        start + self.wait(seconds)
    }
}

/// Returns the real time.
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

const MILLISECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
const SECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

/// Formats a time as `2026-11-23T02:15:00.000Z`.
pub fn milliseconds(time: OffsetDateTime) -> String {
    time.format(MILLISECONDS).unwrap_or_default()
}

/// Formats a time as `2026-11-23T02:15:00Z`.
pub fn whole_seconds(time: OffsetDateTime) -> String {
    time.format(SECONDS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_divided_and_an_invalid_scale_is_real_time() {
        assert_eq!(Clock::scaled(60.0).wait(30.0), Duration::from_millis(500));
        for invalid in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Clock::scaled(invalid).wait(30.0), Duration::from_secs(30));
        }
    }

    #[test]
    fn times_have_the_format_of_aws() {
        let time = time::macros::datetime!(2026-11-23 02:15:00.25 UTC);
        assert_eq!(milliseconds(time), "2026-11-23T02:15:00.250Z");
        assert_eq!(whole_seconds(time), "2026-11-23T02:15:00Z");
    }
}
