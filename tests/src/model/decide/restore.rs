//! The decisions of the restore function.

use restore::attempts::RestoreAttempt;
use restore::launch::candidates;
use restore::launch::decide as shipped;
use restore::launch::reason::Reason;
use shared::budget;
use shared::command::Candidate;
use shared::report::RestoreOutcome;
use shared::verdict;
use time::Duration;

use super::backup::{lifecycle, ping};
use super::memo::Memo;
use super::reports::{invocation, restore_report, sha256};
use crate::model::world::names;
use crate::model::world::{
    Agent, AgentOutcome, BackupNumber, CommandNumber, LaunchWait, Lifecycle, NodeNumber, RunNumber,
    Status,
};

thread_local! {
    static LAUNCHES: Memo<LaunchFacts, LaunchDecision> = Memo::new();
    static SOURCES: Memo<StoredBackups, Source> = Memo::new();
    static OVERTAKEN: Memo<AdmissionFacts, bool> = Memo::new();
}

/// Another member that a restore waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::model) enum LaunchPredecessor {
    Terminating(NodeNumber),
    InService(NodeNumber),
}

/// The facts about an instance in its launch hook.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct LaunchFacts {
    pub(in crate::model) node: NodeNumber,
    pub(in crate::model) lifecycle: Lifecycle,
    pub(in crate::model) waited: LaunchWait,
    pub(in crate::model) predecessor: Option<LaunchPredecessor>,
    pub(in crate::model) agent: Agent,
    /// Its restore commands, oldest first.
    pub(in crate::model) attempts: Vec<(CommandNumber, Status)>,
}

/// The decision about an instance in its launch hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum LaunchDecision {
    Nothing,
    Choose {
        fence_broken_by: Option<NodeNumber>,
    },
    Admit {
        /// The backup that the command's report names.
        restored: Option<BackupNumber>,
        /// Whether the command's report names a skipped backup.
        reports_skipped: bool,
    },
    Abandon(Abandon),
}

/// Why an instance is abandoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) struct Abandon {
    pub(in crate::model) cause: Cause,
    pub(in crate::model) permanent: bool,
}

/// The causes of abandoned launches that have situations of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum Cause {
    PredecessorActive,
    BackupsGone,
    Other,
}

/// Decides about an instance in its launch hook.
pub(in crate::model) fn launch(facts: &LaunchFacts) -> LaunchDecision {
    LAUNCHES.with(|memo| {
        memo.get(facts, |facts| {
            match shipped::decide(&shipped_facts(facts)) {
                shipped::LaunchDecision::AlreadyResolved
                | shipped::LaunchDecision::WaitForAgent
                | shipped::LaunchDecision::WaitForPredecessor { .. }
                | shipped::LaunchDecision::AlreadyRunning { .. } => LaunchDecision::Nothing,
                shipped::LaunchDecision::NotProtected { .. }
                | shipped::LaunchDecision::PassIntoWarmPool => {
                    unreachable!("the model has one protected group, without a warm pool")
                }
                shipped::LaunchDecision::ChooseBackup { fence_broken_by } => {
                    LaunchDecision::Choose {
                        fence_broken_by: fence_broken_by.as_ref().map(names::node),
                    }
                }
                shipped::LaunchDecision::Admit { report, .. } => LaunchDecision::Admit {
                    restored: report.outcome.backup_id().map(names::backup),
                    reports_skipped: !report.skipped.is_empty(),
                },
                shipped::LaunchDecision::Abandon(reason) => {
                    LaunchDecision::Abandon(abandon(&reason))
                }
            }
        })
    })
}

fn abandon(reason: &Reason) -> Abandon {
    let cause = match reason {
        Reason::PredecessorActive { .. } => Cause::PredecessorActive,
        Reason::BackupsGone => Cause::BackupsGone,
        Reason::AgentNeverCame
        | Reason::AgentLost
        | Reason::NoReadableManifest { .. }
        | Reason::RestoreFailed { .. }
        | Reason::NewerBackup { .. }
        | Reason::HardCap => Cause::Other,
        Reason::RootVolumeReplaced
        | Reason::ApplicationShared { .. }
        | Reason::BackupsUnknown { .. }
        | Reason::NewerSchema { .. } => {
            unreachable!("the model has no replaced volume, second group, denied call or version")
        }
    };
    Abandon {
        cause,
        permanent: reason.permanent(),
    }
}

/// Decides whether an instance whose command SSM refused is abandoned.
pub(in crate::model) fn agent_is_lost(facts: &LaunchFacts) -> bool {
    shipped::agent_silent(&shipped_facts(facts)).is_some()
}

fn shipped_facts(facts: &LaunchFacts) -> shipped::LaunchFacts {
    let launched_at = names::requested_at(0);
    let operation = names::launch_operation(facts.node);
    let attempts = facts.attempts.iter().map(|&(command, status)| {
        let reported = match status {
            Status::Ended(AgentOutcome::Restored { backup, .. }) => backup,
            Status::Ended(AgentOutcome::AlreadyRestored { backup, .. }) => backup.unwrap_or(0),
            _ => 0,
        };
        let step = invocation(status, &operation, reported);
        RestoreAttempt {
            command_id: names::command_id(command),
            requested_at: launched_at + Duration::seconds(command.into()),
            verdict: verdict::of_restore(&step.status, Some(&step), &operation),
        }
    });
    let limit = match facts.waited {
        LaunchWait::Short => 0,
        LaunchWait::PastReady => budget::SSM_READY,
        LaunchWait::PastFence => budget::FENCE,
        LaunchWait::PastReadyAndFence => budget::SSM_READY + budget::FENCE,
        LaunchWait::PastHardCap => budget::HARD_CAP,
    };
    shipped::LaunchFacts {
        now: launched_at + Duration::seconds(i64::from(limit) + 1),
        instance_id: names::instance(facts.node),
        group: "dtr".to_owned(),
        state: lifecycle(facts.lifecycle),
        application: Ok(names::application()),
        root_volume_replaced: false,
        launched_at,
        predecessor: facts.predecessor.map(|predecessor| match predecessor {
            LaunchPredecessor::Terminating(node) => {
                shipped::Predecessor::Terminating(names::instance(node))
            }
            LaunchPredecessor::InService(node) => {
                shipped::Predecessor::Active(names::instance(node))
            }
        }),
        ping: ping(facts.agent),
        attempts: attempts.collect(),
    }
}

/// The facts about an application's backups.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct StoredBackups {
    /// The manifests, newest first.
    pub(in crate::model) manifests: Vec<StoredManifest>,
    pub(in crate::model) parameter: bool,
}

/// A manifest in a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::model) struct StoredManifest {
    pub(in crate::model) backup: BackupNumber,
    pub(in crate::model) run: RunNumber,
    /// The node that was backed up.
    pub(in crate::model) of: NodeNumber,
    pub(in crate::model) readable: bool,
}

/// The facts about a restored instance before its admission.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct AdmissionFacts {
    pub(in crate::model) node: NodeNumber,
    /// The backup that was restored, or `None` after a first boot.
    pub(in crate::model) restored: Option<BackupNumber>,
    pub(in crate::model) skipped: Vec<BackupNumber>,
    pub(in crate::model) stored: StoredBackups,
}

/// The source of an instance's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::model) enum Source {
    Restore {
        candidates: Vec<BackupNumber>,
        skipped_manifests: bool,
    },
    FirstBoot,
    Abandon(Abandon),
}

/// Chooses the source of an instance's data.
pub(in crate::model) fn source(facts: &StoredBackups) -> Source {
    SOURCES.with(|memo| {
        memo.get(facts, |facts| {
            let sources = candidates::Sources {
                shared_with: None,
                backups: shipped_backups(facts),
            };
            match candidates::choose(&sources) {
                candidates::Choice::Restore {
                    candidates,
                    unreadable,
                } => Source::Restore {
                    candidates: candidates
                        .iter()
                        .map(|candidate| names::backup(&candidate.backup_id))
                        .collect(),
                    skipped_manifests: !unreadable.is_empty(),
                },
                candidates::Choice::FirstBoot => Source::FirstBoot,
                candidates::Choice::Abandon(reason) => Source::Abandon(abandon(&reason)),
            }
        })
    })
}

/// Decides whether a restored instance is not admitted because a newer backup was committed meanwhile.
pub(in crate::model) fn is_overtaken(facts: &AdmissionFacts) -> bool {
    OVERTAKEN.with(|memo| {
        memo.get(facts, |facts| {
            let report = restore_report(
                names::launch_operation(facts.node),
                RestoreOutcome::AlreadyRestored {
                    backup_id: facts.restored.map(names::backup_id),
                },
                facts.skipped.iter().copied(),
            );
            let instance = names::instance(facts.node);
            let reason =
                candidates::newer_backup(&instance, &report, &shipped_backups(&facts.stored));
            reason.as_ref().map(abandon).is_some()
        })
    })
}

fn shipped_backups(facts: &StoredBackups) -> candidates::Backups {
    if facts.manifests.is_empty() {
        return if facts.parameter {
            candidates::Backups::Gone
        } else {
            candidates::Backups::NeverAny
        };
    }
    let mut committed = Vec::new();
    for stored in &facts.manifests {
        let backup_id = names::backup_id(stored.backup);
        let manifest = if stored.readable {
            candidates::ManifestRead::Readable {
                candidate: Candidate {
                    backup_id: backup_id.clone(),
                    run_id: names::run_id(stored.run),
                    index_sha256: sha256(),
                    index_version: None,
                },
                instance_id: names::instance(stored.of),
            }
        } else {
            candidates::ManifestRead::Unreadable("it is damaged".to_owned())
        };
        committed.push(candidates::Committed {
            backup_id,
            manifest,
        });
        if candidates::is_enough(&committed) {
            break;
        }
    }
    candidates::Backups::Committed(committed)
}
