//! The choice of the backups that a launch restore may use. It uses only the given facts: no calls, no clock, no log.

use shared::command::{Candidate, MOST_CANDIDATES};
use shared::id::{BackupId, InstanceId};
use shared::report::RestoreReport;

use super::reason::Reason;

/// The most manifests that are read to find [`MOST_CANDIDATES`] readable ones.
pub const MOST_MANIFESTS: usize = 24;

/// The facts for the choice of an application's backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Another group of the same application that has instances.
    pub shared_with: Option<String>,
    /// The application's backups, by S3 and the state parameter.
    pub backups: Backups,
}

/// An application's backups, by S3 and the state parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backups {
    /// The committed backups, newest first.
    Committed(Vec<Committed>),
    /// The listing was empty, and no state parameter exists: there never was a backup.
    NeverAny,
    /// The listing was empty, but the state parameter exists: there were backups.
    Gone,
    /// AWS refused a call, and would refuse it again. The text is the error.
    Unknown(String),
}

/// A committed backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The backup, from its manifest's key.
    pub backup_id: BackupId,
    /// Its manifest.
    pub manifest: ManifestRead,
}

/// The result of reading a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestRead {
    /// It is valid.
    Readable {
        /// The backup for the restore command.
        candidate: Candidate,
        /// The instance that was backed up.
        instance_id: InstanceId,
    },
    /// It is missing, damaged or another application's. The text is the reason.
    Unreadable(String),
    /// A newer version of Rekindle wrote it. The text is the error.
    NewerSchema(String),
}

/// A backup that is not offered because its manifest cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableBackup {
    /// The backup.
    pub backup_id: BackupId,
    /// Why its manifest cannot be read.
    pub problem: String,
}

/// The choice for a launching instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Restore the newest backup, or one of its fallbacks.
    Restore {
        /// The backups, newest first: at least one, at most [`MOST_CANDIDATES`].
        candidates: Vec<Candidate>,
        /// The newer backups that cannot be offered.
        unreadable: Vec<UnreadableBackup>,
    },
    /// Start the application empty: it has no backups yet.
    FirstBoot,
    /// Abandon the instance.
    Abandon(Reason),
}

/// Returns the backups that the instance may be restored from.
pub fn choose(sources: &Sources) -> Choice {
    if let Some(with) = sources.shared_with.clone() {
        return Choice::Abandon(Reason::ApplicationShared { with });
    }
    match &sources.backups {
        Backups::NeverAny => Choice::FirstBoot,
        Backups::Gone => Choice::Abandon(Reason::BackupsGone),
        Backups::Unknown(problem) => Choice::Abandon(Reason::BackupsUnknown {
            problem: problem.clone(),
        }),
        Backups::Committed(backups) => choose_among(backups),
    }
}

fn choose_among(backups: &[Committed]) -> Choice {
    let (mut candidates, mut unreadable) = (Vec::new(), Vec::new());
    for Committed {
        backup_id,
        manifest,
    } in backups
    {
        match manifest {
            ManifestRead::Readable { candidate, .. } => candidates.push(candidate.clone()),
            ManifestRead::Unreadable(problem) => unreadable.push(UnreadableBackup {
                backup_id: backup_id.clone(),
                problem: problem.clone(),
            }),
            // A newer version of Rekindle can restore this backup, so a fallback to an older one would lose data. If it
            // is only a fallback itself, the list ends before it.
            ManifestRead::NewerSchema(problem) if candidates.is_empty() => {
                return Choice::Abandon(Reason::NewerSchema {
                    backup_id: backup_id.clone(),
                    problem: problem.clone(),
                });
            }
            ManifestRead::NewerSchema(_) => break,
        }
        if candidates.len() == MOST_CANDIDATES {
            break;
        }
    }
    if candidates.is_empty() {
        let newest = unreadable.into_iter().next();
        return Choice::Abandon(Reason::NoReadableManifest {
            looked_at: backups.len(),
            problem: newest.map_or_else(|| "none was listed".to_owned(), |it| it.problem),
        });
    }
    Choice::Restore {
        candidates,
        unreadable,
    }
}

/// Returns the reason to abandon a restored instance, or `None` if there is none. The reason is a backup of another
/// instance that is newer than the restored one, was not skipped by the restore, and was committed after the restore
/// was chosen.
///
/// The backup function quarantines a backup if its node has a successor. It cannot detect a successor before the
/// restore command is sent, so this check is needed too.
pub fn newer_backup(
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
            ManifestRead::Unreadable(_) => continue,
            // The instance itself was backed up after its restore: it has been in service before.
            ManifestRead::Readable { instance_id, .. } if instance_id == instance => None,
            ManifestRead::Readable { .. } => Some(Reason::NewerBackup { backup_id }),
            ManifestRead::NewerSchema(problem) => Some(Reason::NewerSchema {
                backup_id,
                problem: problem.clone(),
            }),
        };
    }
    None
}

/// Returns whether the manifests that were read so far suffice for the choice.
pub fn is_enough(backups: &[Committed]) -> bool {
    let readable = |backup: &&Committed| matches!(backup.manifest, ManifestRead::Readable { .. });
    let newer = |backup: &Committed| matches!(backup.manifest, ManifestRead::NewerSchema(_));
    backups.iter().filter(readable).count() >= MOST_CANDIDATES || backups.iter().any(newer)
}

#[cfg(test)]
mod tests;
