//! Which backup a launching instance is restored from: decided from the manifests, without reading any.

use shared::command::{Candidate, MOST_CANDIDATES};
use shared::id::{BackupId, InstanceId};
use shared::report::RestoreReport;

use crate::reason::Reason;

/// How many of the newest backups are looked at, at the most, to find [`MOST_CANDIDATES`] that can be read.
pub const MOST_MANIFESTS: usize = 24;

/// What an application has to restore from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stock {
    /// Another protected group with the same application.
    pub shared_with: Option<String>,
    /// What S3 and the state parameter said.
    pub backups: Backups,
}

/// What S3 and the state parameter said of an application's backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backups {
    /// There are some, the newest first.
    Committed(Vec<Committed>),
    /// An authorised listing was empty, and no parameter says that there ever was one.
    NeverAny,
    /// An authorised listing was empty, and the parameter says that there were some.
    Gone,
    /// A call was refused, and would be refused again.
    Unknown(String),
}

/// A committed backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The backup, by its manifest's key.
    pub backup_id: BackupId,
    /// What its manifest says.
    pub manifest: Readable,
}

/// What reading a manifest came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readable {
    /// It names what a restore command needs.
    Yes {
        /// That.
        candidate: Candidate,
        /// The instance that was backed up.
        instance_id: InstanceId,
    },
    /// It is damaged, or another application's.
    No(String),
    /// A newer Rekindle wrote it.
    ByNewerVersion(String),
}

/// A backup that is not offered to the node because its manifest cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// The backup.
    pub backup_id: BackupId,
    /// What is wrong with its manifest.
    pub problem: String,
}

/// Where a launching instance gets its data from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// From the newest backup, or from one of its fallbacks.
    Restore {
        /// The newest first; at least one, at most [`MOST_CANDIDATES`].
        candidates: Vec<Candidate>,
        /// Those between them that cannot be offered.
        passed_over: Vec<PassedOver>,
    },
    /// From nowhere: the application's first node starts its application empty.
    FirstBoot,
    /// There is no good answer.
    Abandon(Reason),
}

/// Chooses what the instance is restored from.
pub fn source(stock: &Stock) -> Source {
    if let Some(with) = stock.shared_with.clone() {
        return Source::Abandon(Reason::ApplicationShared { with });
    }
    match &stock.backups {
        Backups::NeverAny => Source::FirstBoot,
        Backups::Gone => Source::Abandon(Reason::BackupsGone),
        Backups::Unknown(problem) => Source::Abandon(Reason::BackupsUnknown {
            problem: problem.clone(),
        }),
        Backups::Committed(backups) => among(backups),
    }
}

fn among(backups: &[Committed]) -> Source {
    let (mut candidates, mut passed_over) = (Vec::new(), Vec::new());
    for Committed {
        backup_id,
        manifest,
    } in backups
    {
        match manifest {
            Readable::Yes { candidate, .. } => candidates.push(candidate.clone()),
            Readable::No(problem) => passed_over.push(PassedOver {
                backup_id: backup_id.clone(),
                problem: problem.clone(),
            }),
            // What a newer version wrote is good, and only unreadable here: falling back past it would lose
            // data in silence. As a mere fallback it ends the list.
            Readable::ByNewerVersion(problem) if candidates.is_empty() => {
                return Source::Abandon(Reason::NewerSchema {
                    backup_id: backup_id.clone(),
                    problem: problem.clone(),
                });
            }
            Readable::ByNewerVersion(_) => break,
        }
        if candidates.len() == MOST_CANDIDATES {
            break;
        }
    }
    if candidates.is_empty() {
        let newest = passed_over.into_iter().next();
        return Source::Abandon(Reason::NoReadableManifest {
            looked_at: backups.len(),
            problem: newest.map_or_else(|| "none was listed".to_owned(), |it| it.problem),
        });
    }
    Source::Restore {
        candidates,
        passed_over,
    }
}

/// Says why an instance whose restore has succeeded is not let into service after all: a backup of another instance,
/// newer than what it has and none that it skipped, was committed since its restore was chosen.
///
/// The guard keeps a backup aside whose node has a successor. It cannot know of one whose restore is only being sent.
pub fn overtaken(
    instance: &InstanceId,
    report: &RestoreReport,
    backups: &Backups,
) -> Option<Reason> {
    let restored = report.outcome.backup_id();
    let Backups::Committed(backups) = backups else {
        return None;
    };
    for Committed {
        backup_id,
        manifest,
    } in backups
    {
        let mut skipped = report.skipped.iter();
        if Some(backup_id) <= restored || skipped.any(|it| it.backup_id == *backup_id) {
            continue;
        }
        let backup_id = backup_id.clone();
        return match manifest {
            Readable::No(_) => continue,
            // Put back into its group, it has been backed up since it was restored.
            Readable::Yes { instance_id, .. } if instance_id == instance => None,
            Readable::Yes { .. } => Some(Reason::NewerBackup { backup_id }),
            Readable::ByNewerVersion(problem) => Some(Reason::NewerSchema {
                backup_id,
                problem: problem.clone(),
            }),
        };
    }
    None
}

/// Tells whether the manifests read so far decide, so that no older one needs to be read.
pub fn is_enough(backups: &[Committed]) -> bool {
    let readable = |backup: &&Committed| matches!(backup.manifest, Readable::Yes { .. });
    let newer = |backup: &Committed| matches!(backup.manifest, Readable::ByNewerVersion(_));
    backups.iter().filter(readable).count() >= MOST_CANDIDATES || backups.iter().any(newer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shared::report::{ExitCode, RestoreOutcome, SkippedBackup};

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

    fn readable(number: usize, instance: &str) -> Readable {
        Readable::Yes {
            candidate: candidate(number),
            instance_id: instance.parse().unwrap(),
        }
    }

    /// Makes a stock from one letter per backup, the newest first: `y` readable, `o` readable and the instance's own,
    /// `n` damaged, `v` newer version.
    fn committed(letters: &str) -> Stock {
        let backups = letters
            .chars()
            .enumerate()
            .map(|(number, letter)| Committed {
                backup_id: backup_id(number),
                manifest: match letter {
                    'y' => readable(number, "i-0000000a"),
                    'o' => readable(number, "i-0000000b"),
                    'n' => Readable::No("cut short".to_owned()),
                    _ => Readable::ByNewerVersion("schema 2".to_owned()),
                },
            });
        stock(Backups::Committed(backups.collect()))
    }

    fn stock(backups: Backups) -> Stock {
        Stock {
            shared_with: None,
            backups,
        }
    }

    /// Says what was chosen: the numbers of the candidates, a slash, those passed over; or the reason's kind.
    fn chosen(stock: &Stock) -> String {
        let number = |id: &BackupId| (0..60).find(|n| backup_id(*n) == *id).unwrap().to_string();
        match source(stock) {
            Source::Restore {
                candidates,
                passed_over,
            } => {
                let candidates: String =
                    candidates.iter().map(|it| number(&it.backup_id)).collect();
                let passed: String = passed_over.iter().map(|it| number(&it.backup_id)).collect();
                format!("{candidates}/{passed}")
            }
            Source::FirstBoot => "first boot".to_owned(),
            Source::Abandon(reason) => reason.kind().to_owned(),
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
    fn nothing_falls_back_past_a_newer_version() {
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
    fn an_empty_bucket_is_a_first_boot_only_where_there_never_was_a_backup() {
        assert_eq!(chosen(&stock(Backups::NeverAny)), "first boot");
        assert_eq!(chosen(&stock(Backups::Gone)), "BackupsGone");
        let denied = Backups::Unknown("s3:ListObjectsV2 failed (AccessDenied)".to_owned());
        assert_eq!(chosen(&stock(denied)), "BackupsUnknown");
    }

    #[test]
    fn two_groups_never_share_one_truth() {
        for mut stock in [stock(Backups::NeverAny), committed("y")] {
            stock.shared_with = Some("other".to_owned());
            assert_eq!(chosen(&stock), "ApplicationShared");
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
            seconds: 1.0,
            swap_seconds: 0.0,
            peak_memory_kib: 1,
        }
    }

    #[test]
    fn what_was_committed_since_the_choice_keeps_an_instance_out_of_service() {
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
            let found = overtaken(&instance, &report(outcome.clone(), skipped), &backups);
            let found = found.map_or("none", |reason| reason.kind());
            assert_eq!(found, expected, "{letters} {outcome:?}");
        }
        for backups in [Backups::NeverAny, Backups::Gone] {
            assert_eq!(
                overtaken(&instance, &report(restored(0), &[]), &backups),
                None
            );
        }
    }

    proptest! {
        #[test]
        fn first_boot_never_where_a_parameter_or_a_manifest_exists(
            letters in "[ynv]{1,24}", refused in any::<bool>(), shared in any::<bool>(),
        ) {
            let mut stock = committed(&letters);
            stock.shared_with = shared.then(|| "other".to_owned());
            prop_assert_ne!(chosen(&stock), "first boot");
            stock.backups = if refused { Backups::Unknown(letters) } else { Backups::Gone };
            prop_assert_ne!(chosen(&stock), "first boot");
        }

        #[test]
        fn reading_no_further_than_enough_changes_nothing(letters in "[ynv]{1,24}") {
            let all = committed(&letters);
            let Backups::Committed(backups) = &all.backups else { unreachable!() };
            let read = (1..=backups.len()).find(|n| is_enough(&backups[..*n])).unwrap_or(backups.len());
            let some = stock(Backups::Committed(backups[..read].to_vec()));
            prop_assert_eq!(source(&some), source(&all));
        }

        #[test]
        fn a_restore_names_one_to_three_candidates_in_order(letters in "[ynv]{1,24}") {
            if let Source::Restore { candidates, .. } = source(&committed(&letters)) {
                prop_assert!((1..=MOST_CANDIDATES).contains(&candidates.len()));
                prop_assert!(candidates.is_sorted_by(|a, b| a.backup_id > b.backup_id));
            }
        }
    }
}
