//! Which backups continue the newest one, and which have lost too much.

use super::*;
use proptest::prelude::*;

const OLDER: &str = "20261123T020000.000Z";
const NEWEST: &str = "20261123T021500.000Z";
const NEW: &str = "20261123T023000.000Z";

fn profile(backup: &str, instance: &str, lineage: Lineage) -> Profile {
    Profile {
        backup_id: backup.parse().unwrap(),
        purpose: Purpose::Scheduled,
        instance_id: instance.parse().unwrap(),
        system_identifier: "7".to_owned(),
        lineage,
        rows: 100,
        tables: 10,
        bytes: 1_000,
    }
}

fn restored(from: &str, skipped: &[&str]) -> Lineage {
    Lineage::Restored {
        backup_id: from.parse().unwrap(),
        skipped: skipped.iter().map(|id| id.parse().unwrap()).collect(),
    }
}

/// Returns the backup that one of this origin continues, where the newest one is of `i-0000000a`, which started empty.
fn continued(instance: &str, lineage: Lineage) -> String {
    let newest = profile(NEWEST, "i-0000000a", Lineage::FirstBoot);
    let new = profile(NEW, instance, lineage);
    match continues(&new, &OlderBackup::Newest(newest)) {
        Ok(continued) => continued.map_or("nothing".to_owned(), |id| id.to_string()),
        Err(reason) => reason.kind().as_str().to_owned(),
    }
}

#[test]
fn only_the_same_node_or_one_restored_from_the_newest_continues_it() {
    let refused = "QuarantinedLineage";
    let cases = [
        ("the same node", "i-0000000a", Lineage::FirstBoot, NEWEST),
        (
            "its replacement",
            "i-0000000b",
            restored(NEWEST, &[]),
            NEWEST,
        ),
        (
            "a replacement that skipped the newest",
            "i-0000000b",
            restored(OLDER, &[NEWEST]),
            OLDER,
        ),
        (
            "the same node, restored in place",
            "i-0000000a",
            restored(OLDER, &[]),
            OLDER,
        ),
        ("a sibling", "i-0000000b", restored(OLDER, &[]), refused),
        (
            "another that started empty",
            "i-0000000b",
            Lineage::FirstBoot,
            refused,
        ),
        (
            "another that was adopted before",
            "i-0000000b",
            Lineage::Adopted,
            refused,
        ),
    ];
    for (case, instance, lineage, expected) in cases {
        assert_eq!(continued(instance, lineage), expected, "{case}");
    }
}

#[test]
fn another_cluster_on_the_same_instance_is_another_node() {
    let newest = profile(NEWEST, "i-0000000a", Lineage::FirstBoot);
    let mut new = profile(NEW, "i-0000000a", Lineage::FirstBoot);
    new.system_identifier = "8".to_owned();
    assert!(continues(&new, &OlderBackup::Newest(newest)).is_err());
}

#[test]
fn an_adopting_backup_need_not_continue_the_newest() {
    let mut new = profile(NEW, "i-0000000b", Lineage::Adopted);
    new.purpose = Purpose::Adopt;
    let newest = profile(NEWEST, "i-0000000a", Lineage::FirstBoot);
    assert_eq!(continues(&new, &OlderBackup::Newest(newest)), Ok(None));
}

#[test]
fn a_first_backup_continues_nothing_and_an_unreadable_one_cannot_be_continued() {
    let new = profile(NEW, "i-0000000a", Lineage::FirstBoot);
    assert_eq!(continues(&new, &OlderBackup::None), Ok(None));
    let unreadable = OlderBackup::Unreadable("cut short".to_owned());
    let reason = continues(&new, &unreadable).unwrap_err();
    assert_eq!(reason.kind().as_str(), "QuarantinedUnknown");
}

proptest! {
    #[test]
    fn a_backup_is_quarantined_if_less_than_half_of_anything_is_left(
        before in prop::array::uniform3(0u64..1_000), now in prop::array::uniform3(0u64..1_000),
    ) {
        let with = |id, [rows, tables, bytes]: [u64; 3]| {
            Profile { rows, tables, bytes, ..profile(id, "i-0000000a", Lineage::FirstBoot) }
        };
        let quarantined = compare(&with(NEW, now), &with(NEWEST, before)).is_err();
        let lost = (0..3).any(|i| now[i] * 2 < before[i]);
        prop_assert_eq!(quarantined, lost);
    }
}
