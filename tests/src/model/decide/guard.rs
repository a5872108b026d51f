//! The guard's questions.

use backup::finished::quarantine::decide as shipped;
use shared::manifest::Lineage;

use super::Answers;
use super::backups::shipped_purpose;
use crate::model::names;
use crate::model::world::{BackupNumber, Data, NodeNumber, Purpose};

thread_local! {
    static CONTINUES: Answers<(Profile, Predecessor), Continued> = Answers::new();
    static LOSSES: Answers<(Profile, Profile), bool> = Answers::new();
}

/// What the guard looks at in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct Profile {
    pub(in crate::model) backup: BackupNumber,
    pub(in crate::model) node: NodeNumber,
    pub(in crate::model) purpose: Purpose,
    pub(in crate::model) data: Data,
    pub(in crate::model) skipped: Vec<BackupNumber>,
    pub(in crate::model) emptied: bool,
}

/// What a new backup is held against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) enum Predecessor {
    None,
    Newest(Profile),
    Unreadable,
}

/// What a new backup continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum Continued {
    Nothing,
    Backup(BackupNumber),
    Doubtful,
}

/// Asks which backup a new one continues.
pub(in crate::model) fn continues(new: &Profile, predecessor: &Predecessor) -> Continued {
    CONTINUES.with(|answers| {
        answers.of(&(new.clone(), predecessor.clone()), |(new, predecessor)| {
            let predecessor = match predecessor {
                Predecessor::None => shipped::Predecessor::None,
                Predecessor::Newest(profile) => shipped::Predecessor::Newest(written_out(profile)),
                Predecessor::Unreadable => {
                    shipped::Predecessor::Unreadable("it is damaged".to_owned())
                }
            };
            match shipped::continues(&written_out(new), &predecessor) {
                Ok(None) => Continued::Nothing,
                Ok(Some(backup)) => Continued::Backup(names::backup(&backup)),
                Err(_) => Continued::Doubtful,
            }
        })
    })
}

/// Asks whether a backup lost most of what another one held.
pub(in crate::model) fn lost_most(new: &Profile, reference: &Profile) -> bool {
    LOSSES.with(|answers| {
        answers.of(&(new.clone(), reference.clone()), |(new, reference)| {
            shipped::compare(&written_out(new), &written_out(reference)).is_err()
        })
    })
}

fn written_out(profile: &Profile) -> shipped::Profile {
    let lineage = match profile.data {
        Data::Of(backup) => Lineage::Restored {
            backup_id: names::backup_id(backup),
            skipped: profile
                .skipped
                .iter()
                .copied()
                .map(names::backup_id)
                .collect(),
        },
        Data::HandMade => Lineage::Adopted,
        Data::FirstBoot | Data::Nobodys | Data::Unverified => Lineage::FirstBoot,
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
