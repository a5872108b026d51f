//! The rule for ticks that are too late, or too early, to start backups.

use shared::budget;
use time::OffsetDateTime;

/// Returns the reason why a tick starts no backup at all, or `None` if it may start some.
pub fn reason_to_skip(scheduled: OffsetDateTime, now: OffsetDateTime) -> Option<String> {
    let age = (now - scheduled).whole_seconds();
    if age > i64::from(budget::BACKUP_EVENT_AGE) {
        return Some(format!(
            "the tick is {age} s late (limit {} s); the next tick will back up",
            budget::BACKUP_EVENT_AGE
        ));
    }
    if age < -i64::from(budget::MARGIN) {
        return Some(format!(
            "the tick is {} s in the future; check its sender",
            -age
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use time::Duration;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-23 02:20:00 UTC);

    #[test]
    fn a_late_tick_and_one_from_the_future_start_nothing() {
        let age = |seconds: i64| reason_to_skip(NOW - Duration::seconds(seconds), NOW);
        assert_eq!(age(0), None);
        assert_eq!(age(i64::from(budget::BACKUP_EVENT_AGE)), None);
        assert!(
            age(i64::from(budget::BACKUP_EVENT_AGE) + 1)
                .unwrap()
                .contains("601 s late")
        );
        assert_eq!(age(-60), None);
        assert!(age(-61).unwrap().contains("future"));
    }
}
