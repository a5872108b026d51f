//! Which backups and runs expire, with random ages.

use super::*;
use proptest::prelude::*;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-11-23 02:20:00 UTC);
const POLICY: Retention = Retention {
    all: Duration::hours(48),
    hourly: Duration::days(7),
    daily: Duration::days(35),
    at_least: 8,
};

fn backup(minutes_ago: i64) -> BackupId {
    BackupId::at(NOW - Duration::minutes(minutes_ago))
}

fn left(backups: &BTreeSet<BackupId>, expired: &[BackupId]) -> BTreeSet<BackupId> {
    let expired: BTreeSet<BackupId> = expired.iter().cloned().collect();
    backups.difference(&expired).cloned().collect()
}

#[test]
fn after_two_months_two_days_a_week_of_hours_and_five_weeks_of_days_are_kept() {
    let quarters = 60 * 24 * 4;
    let backups: BTreeSet<BackupId> = (0..quarters).map(|n| backup(n * 15)).collect();
    let left = left(&backups, &expired(&POLICY, &backups, &BTreeSet::new(), NOW));
    let aged = |from: Duration, to: Duration| {
        let ages = left.iter().map(|backup| NOW - backup.time());
        ages.filter(|age| (from..to).contains(age)).count()
    };
    let days = Duration::days;
    assert_eq!(aged(days(0), days(2)), 192);
    assert_eq!(aged(days(2), days(7)), 5 * 24);
    assert_eq!(aged(days(7), days(35)), 28);
    assert_eq!(aged(days(35), days(90)), 0);
}

/// Backups of the last 60 days, and those among them that stay at any age.
fn stock() -> impl Strategy<Value = (BTreeSet<BackupId>, BTreeSet<BackupId>)> {
    prop::collection::vec((0i64..60 * 24 * 60, prop::bool::weighted(0.1)), 0..200).prop_map(
        |ages| {
            let backups = ages.iter().map(|(age, _)| backup(*age)).collect();
            let kept = ages.iter().filter(|(_, kept)| *kept);
            (backups, kept.map(|(age, _)| backup(*age)).collect())
        },
    )
}

proptest! {
    #[test]
    fn nothing_young_or_kept_ever_expires((backups, kept) in stock(), all in 0i64..100) {
        let policy = Retention { all: Duration::hours(all), ..POLICY };
        for id in expired(&policy, &backups, &kept, NOW) {
            prop_assert!(NOW - id.time() >= UNTOUCHED && NOW - id.time() >= policy.all);
            prop_assert!(backups.contains(&id) && !kept.contains(&id));
        }
    }

    #[test]
    fn every_hour_of_a_week_and_every_day_of_five_weeks_keeps_its_first((backups, kept) in stock()) {
        let left = left(&backups, &expired(&POLICY, &backups, &kept, NOW));
        let times: Vec<OffsetDateTime> = backups.iter().map(BackupId::time).collect();
        let hour = |time: &OffsetDateTime| (time.date(), time.hour());
        for (at, id) in backups.iter().enumerate() {
            let (age, earlier) = (NOW - times[at], &times[..at]);
            let first_of_day = earlier.iter().all(|time| time.date() != times[at].date());
            let first_of_hour = earlier.iter().all(|time| hour(time) != hour(&times[at]));
            if (first_of_day && age < POLICY.daily) || (first_of_hour && age < POLICY.hourly) {
                prop_assert!(left.contains(id));
            }
        }
    }

    #[test]
    fn the_backups_that_expire_do_not_depend_on_earlier_passes((backups, kept) in stock(), step in 1i64..5_000) {
        let later = NOW + Duration::minutes(step);
        let at_once = left(&backups, &expired(&POLICY, &backups, &kept, later));
        let once = left(&backups, &expired(&POLICY, &backups, &kept, NOW));
        let twice = left(&once, &expired(&POLICY, &once, &kept, later));
        prop_assert_eq!(at_once, twice);
    }

    #[test]
    fn only_old_runs_without_a_manifest_are_orphans(
        attempts in prop::collection::vec((0i64..10_000, 0u32..3, 0u8..3, 0i64..10_000), 0..50),
    ) {
        let run = |number: u32| -> RunId { format!("{number:08x}").parse().unwrap() };
        let all: BTreeMap<(BackupId, RunId), OffsetDateTime> = attempts
            .iter()
            .map(|(age, number, _, put)| ((backup(*age), run(*number)), NOW - Duration::minutes(*put)))
            .collect();
        let owned = attempts.iter().filter(|(_, _, owner, _)| *owner > 0);
        let owners: BTreeMap<BackupId, Option<RunId>> = owned
            .map(|(age, number, owner, _)| (backup(*age), (*owner == 1).then(|| run(*number))))
            .collect();
        let orphans = orphans(&all, &owners, NOW);
        for (attempt, put) in &all {
            let (id, number) = attempt;
            let young = NOW - id.time() < UNTOUCHED || NOW - *put < UNTOUCHED;
            let owned = owners.get(id).is_some_and(|owner| owner.as_ref().is_none_or(|owner| owner == number));
            prop_assert_eq!(orphans.contains(attempt), !young && !owned);
        }
    }
}
