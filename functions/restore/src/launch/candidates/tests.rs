//! The choice of backups, for short descriptions of a bucket.

use super::*;
use proptest::prelude::*;
use shared::exit_code::ExitCode;
use shared::report::{RestoreOutcome, SkippedBackup};

fn backup_id(number: usize) -> BackupId {
    format!("20261123T02{:02}00.000Z", 59 - number)
        .parse()
        .unwrap()
}

fn candidate(number: usize) -> Candidate {
    Candidate {
        backup_id: backup_id(number),
        run_id: "0a1b2c3d".parse().unwrap(),
        index_sha256: "ab".repeat(32).parse().unwrap(),
        index_version: None,
    }
}

fn readable(number: usize, instance: &str) -> ManifestRead {
    ManifestRead::Readable {
        candidate: candidate(number),
        instance_id: instance.parse().unwrap(),
    }
}

/// Returns the sources for a text with one letter for each backup, newest first: `y` is readable, `o` is readable and
/// the instance's own, `n` is damaged, `v` is a newer version's.
fn committed(letters: &str) -> Sources {
    let backups = letters
        .chars()
        .enumerate()
        .map(|(number, letter)| Committed {
            backup_id: backup_id(number),
            manifest: match letter {
                'y' => readable(number, "i-0000000a"),
                'o' => readable(number, "i-0000000b"),
                'n' => ManifestRead::Unreadable("truncated".to_owned()),
                _ => ManifestRead::NewerSchema("schema 2".to_owned()),
            },
        });
    sources(Backups::Committed(backups.collect()))
}

fn sources(backups: Backups) -> Sources {
    Sources {
        shared_with: None,
        backups,
    }
}

/// Returns the choice as text: the numbers of the candidates, a slash, the unreadable ones; or the reason's kind.
fn chosen(sources: &Sources) -> String {
    let number = |id: &BackupId| (0..60).find(|n| backup_id(*n) == *id).unwrap().to_string();
    match choose(sources) {
        Choice::Restore {
            candidates,
            unreadable,
        } => {
            let candidates: String = candidates.iter().map(|it| number(&it.backup_id)).collect();
            let unreadable: String = unreadable.iter().map(|it| number(&it.backup_id)).collect();
            format!("{candidates}/{unreadable}")
        }
        Choice::FirstBoot => "first boot".to_owned(),
        Choice::Abandon(reason) => reason.kind().as_str().to_owned(),
    }
}

#[test]
fn the_newest_readable_backups_are_offered_newest_first() {
    let cases = [
        ("y", "0/"),
        ("yy", "01/"),
        ("yyy", "012/"),
        ("yyyy", "012/"),
        ("nyyyy", "123/0"),
        ("ynynyny", "024/13"),
        ("yyyn", "012/"),
        ("nnnnnnnny", "8/01234567"),
        ("n", "NoReadableManifest"),
        ("nnn", "NoReadableManifest"),
    ];
    for (letters, expected) in cases {
        assert_eq!(chosen(&committed(letters)), expected, "{letters}");
    }
}

#[test]
fn no_fallback_is_older_than_a_backup_of_a_newer_version() {
    let cases = [
        ("v", "NewerSchema"),
        ("vyyy", "NewerSchema"),
        ("nvyy", "NewerSchema"),
        ("yvyy", "0/"),
        ("yyyv", "012/"),
    ];
    for (letters, expected) in cases {
        assert_eq!(chosen(&committed(letters)), expected, "{letters}");
    }
}

#[test]
fn an_empty_bucket_is_a_first_boot_only_if_there_never_was_a_backup() {
    assert_eq!(chosen(&sources(Backups::NeverAny)), "first boot");
    assert_eq!(chosen(&sources(Backups::Gone)), "BackupsGone");
    let denied = Backups::Unknown("s3:ListObjectsV2 failed (AccessDenied)".to_owned());
    assert_eq!(chosen(&sources(denied)), "BackupsUnknown");
}

#[test]
fn an_application_that_two_groups_share_is_not_restored() {
    for mut sources in [sources(Backups::NeverAny), committed("y")] {
        sources.shared_with = Some("other".to_owned());
        assert_eq!(chosen(&sources), "ApplicationShared");
    }
}

fn report(outcome: RestoreOutcome, skipped: &[usize]) -> RestoreReport {
    let skipped = skipped.iter().map(|number| SkippedBackup {
        backup_id: backup_id(*number),
        exit_code: ExitCode::Verification,
        reason: String::new(),
    });
    RestoreReport {
        operation_id: "launch-i-0000000b".parse().unwrap(),
        outcome,
        skipped: skipped.collect(),
        exceptions: shared::report::exceptions::ReportedExceptions::default(),
        seconds: 1.0,
        swap_seconds: 0.0,
        peak_memory_kib: 1,
    }
}

#[test]
fn an_instance_is_abandoned_if_a_newer_backup_was_committed_after_the_choice() {
    let restored = |number| RestoreOutcome::Restored {
        backup_id: backup_id(number),
        age_seconds: 1,
        rows: 1,
        bytes: 1,
    };
    let before = |number: Option<usize>| RestoreOutcome::AlreadyRestored {
        backup_id: number.map(backup_id),
    };
    let first_boot = || RestoreOutcome::FirstBoot;
    let cases = [
        ("yyy", restored(0), &[][..], "none"),
        ("yyy", restored(1), &[], "NewerBackup"),
        ("yyy", restored(1), &[0], "none"),
        ("yyyy", restored(2), &[1], "NewerBackup"),
        ("nyy", restored(1), &[], "none"),
        ("nyy", restored(2), &[], "NewerBackup"),
        ("vyy", restored(1), &[], "NewerSchema"),
        ("y", first_boot(), &[], "NewerBackup"),
        ("n", first_boot(), &[], "none"),
        ("yy", before(Some(0)), &[], "none"),
        ("yy", before(Some(1)), &[], "NewerBackup"),
        ("oyy", before(Some(2)), &[], "none"),
        ("yoy", before(Some(2)), &[], "NewerBackup"),
        ("oo", before(None), &[], "none"),
    ];
    let instance = "i-0000000b".parse().unwrap();
    for (letters, outcome, skipped, expected) in cases {
        let backups = committed(letters).backups;
        let found = newer_backup(&instance, &report(outcome.clone(), skipped), &backups);
        let found = found.map_or("none", |reason| reason.kind().as_str());
        assert_eq!(found, expected, "{letters} {outcome:?}");
    }
    for backups in [Backups::NeverAny, Backups::Gone] {
        assert_eq!(
            newer_backup(&instance, &report(restored(0), &[]), &backups),
            None
        );
    }
}

proptest! {
    #[test]
    fn no_first_boot_if_a_parameter_or_a_manifest_exists(
        letters in "[ynv]{1,24}", refused in any::<bool>(), shared in any::<bool>(),
    ) {
        let mut sources = committed(&letters);
        sources.shared_with = shared.then(|| "other".to_owned());
        prop_assert_ne!(chosen(&sources), "first boot");
        sources.backups = if refused { Backups::Unknown(letters) } else { Backups::Gone };
        prop_assert_ne!(chosen(&sources), "first boot");
    }

    #[test]
    fn reading_stops_when_older_manifests_would_not_change_the_choice(letters in "[ynv]{1,24}") {
        let all = committed(&letters);
        let Backups::Committed(backups) = &all.backups else { unreachable!() };
        let read = (1..=backups.len()).find(|n| is_enough(&backups[..*n])).unwrap_or(backups.len());
        let some = sources(Backups::Committed(backups[..read].to_vec()));
        prop_assert_eq!(choose(&some), choose(&all));
    }

    #[test]
    fn a_restore_names_one_to_three_candidates_in_order(letters in "[ynv]{1,24}") {
        if let Choice::Restore { candidates, .. } = choose(&committed(&letters)) {
            prop_assert!((1..=MOST_CANDIDATES).contains(&candidates.len()));
            prop_assert!(candidates.is_sorted_by(|a, b| a.backup_id > b.backup_id));
        }
    }
}
