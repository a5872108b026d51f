//! The decisions of the guard.

use backup::finished::quarantine::decide as shipped;
use shared::manifest::Lineage;

use super::backup::shipped_purpose;
use super::memo::Memo;
use crate::model::world::names;
use crate::model::world::{BackupNumber, Data, NodeNumber, Purpose};

thread_local! {
    static CONTINUES: Memo<(Profile, OlderBackup), Continued> = Memo::new();
    static LOSSES: Memo<(Profile, Profile), bool> = Memo::new();
}

/// The facts about a backup.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct Profile {
    pub(in crate::model) backup: BackupNumber,
    pub(in crate::model) node: NodeNumber,
    pub(in crate::model) purpose: Purpose,
    pub(in crate::model) data: Data,
    pub(in crate::model) skipped: Vec<BackupNumber>,
    pub(in crate::model) emptied: bool,
}

/// The backup that a new one is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) enum OlderBackup {
    None,
    Newest(Profile),
    Unreadable,
}

/// The backup that a new one continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum Continued {
    Nothing,
    Backup(BackupNumber),
    Suspicious,
}

/// Decides which backup a new one continues.
pub(in crate::model) fn continues(new: &Profile, older: &OlderBackup) -> Continued {
    CONTINUES.with(|memo| {
        memo.get(&(new.clone(), older.clone()), |(new, older)| {
            let older = match older {
                OlderBackup::None => shipped::OlderBackup::None,
                OlderBackup::Newest(profile) => {
                    shipped::OlderBackup::Newest(shipped_profile(profile))
                }
                OlderBackup::Unreadable => {
                    shipped::OlderBackup::Unreadable("it is damaged".to_owned())
                }
            };
            match shipped::continues(&shipped_profile(new), &older) {
                Ok(None) => Continued::Nothing,
                Ok(Some(backup)) => Continued::Backup(names::backup(&backup)),
                Err(
                    shipped::QuarantineReason::OtherLineage { .. }
                    | shipped::QuarantineReason::ReferenceUnreadable { .. },
                ) => Continued::Suspicious,
                Err(
                    shipped::QuarantineReason::Superseded { .. }
                    | shipped::QuarantineReason::LostMost { .. },
                ) => {
                    unreachable!("the lineage alone decides")
                }
            }
        })
    })
}

/// Decides whether a backup lost most of an older backup's rows.
pub(in crate::model) fn lost_most(new: &Profile, reference: &Profile) -> bool {
    LOSSES.with(|memo| {
        memo.get(
            &(new.clone(), reference.clone()),
            |(new, reference)| match shipped::compare(
                &shipped_profile(new),
                &shipped_profile(reference),
            ) {
                Ok(()) => false,
                Err(shipped::QuarantineReason::LostMost { .. }) => true,
                Err(
                    shipped::QuarantineReason::Superseded { .. }
                    | shipped::QuarantineReason::OtherLineage { .. }
                    | shipped::QuarantineReason::ReferenceUnreadable { .. },
                ) => unreachable!("the counts alone decide"),
            },
        )
    })
}

fn shipped_profile(profile: &Profile) -> shipped::Profile {
    let lineage = match profile.data {
        Data::FromBackup(backup) => Lineage::Restored {
            backup_id: names::backup_id(backup),
            skipped: profile
                .skipped
                .iter()
                .copied()
                .map(names::backup_id)
                .collect(),
        },
        Data::HandMade => Lineage::Adopted,
        Data::FirstBoot | Data::Unrestored | Data::Unverified => Lineage::FirstBoot,
    };
    shipped::Profile {
        backup_id: names::backup_id(profile.backup),
        purpose: shipped_purpose(profile.purpose),
        instance_id: names::instance(profile.node),
        system_identifier: profile.node.to_string(),
        lineage,
        rows: if profile.emptied { 1 } else { 100 },
        tables: 1,
        bytes: 100,
    }
}
