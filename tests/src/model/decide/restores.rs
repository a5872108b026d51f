//! The restore function's questions.

use restore::attempt::{self, Attempt};
use restore::choose::{self, Backups, Committed, Readable, Stock};
use restore::decide::{self as shipped, Decision, Facts};
use shared::aws::autoscaling::LifecycleState;
use shared::budget;
use shared::command::Candidate;
use shared::report::RestoreOutcome;
use time::Duration;

use super::Answers;
use super::reports::{invocation, restore_report, sha256};
use crate::model::names;
use crate::model::world::{
    Agent, BackupNumber, CommandNumber, NodeNumber, Outcome, RunNumber, Standing, Status, Waited,
};

thread_local! {
    static LAUNCHES: Answers<LaunchQuestion, Launch> = Answers::new();
    static SOURCES: Answers<SourceQuestion, Source> = Answers::new();
    static OVERTAKEN: Answers<AdmissionQuestion, bool> = Answers::new();
}

/// Another member that a restore waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::model) enum Fence {
    Leaving(NodeNumber),
    Active(NodeNumber),
}

/// What is known of an instance in the launch hook.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct LaunchQuestion {
    pub(in crate::model) node: NodeNumber,
    pub(in crate::model) standing: Standing,
    pub(in crate::model) waited: Waited,
    pub(in crate::model) predecessor: Option<Fence>,
    pub(in crate::model) agent: Agent,
    /// Its restore commands, in the order in which they were sent.
    pub(in crate::model) attempts: Vec<(CommandNumber, Status)>,
}

/// What is done about an instance in the launch hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum Launch {
    Nothing,
    Choose {
        fence_broken_by: Option<NodeNumber>,
    },
    Admit {
        /// The backup that the report names.
        restored: Option<BackupNumber>,
        /// Whether the report that is told names a backup that was skipped.
        tells_skipped: bool,
    },
    Abandon {
        because: &'static str,
        permanent: bool,
    },
}

/// Asks what is done about an instance in the launch hook.
pub(in crate::model) fn launch(question: &LaunchQuestion) -> Launch {
    LAUNCHES.with(|answers| {
        answers.of(question, |question| {
            match shipped::instance(&facts(question)) {
                Decision::AlreadyResolved { .. }
                | Decision::NotProtected { .. }
                | Decision::PassIntoWarmPool
                | Decision::WaitForAgent
                | Decision::WaitForPredecessor { .. }
                | Decision::AlreadyRunning { .. } => Launch::Nothing,
                Decision::ChooseBackup { fence_broken_by } => Launch::Choose {
                    fence_broken_by: fence_broken_by.as_ref().map(names::node),
                },
                Decision::Continue { report, .. } => Launch::Admit {
                    restored: report.outcome.backup_id().map(names::backup),
                    tells_skipped: !report.skipped.is_empty(),
                },
                Decision::Abandon(reason) => Launch::Abandon {
                    because: reason.kind(),
                    permanent: reason.permanent(),
                },
            }
        })
    })
}

/// Asks whether an instance that SSM refuses is given up.
pub(in crate::model) fn agent_is_lost(question: &LaunchQuestion) -> bool {
    matches!(
        shipped::agent_silent(&facts(question)),
        Decision::Abandon(_)
    )
}

fn facts(question: &LaunchQuestion) -> Facts {
    let launched_at = names::asked_at(0);
    let operation = names::launch_operation(question.node);
    let attempts = question.attempts.iter().map(|&(command, status)| {
        let reported = match status {
            Status::Ended(Outcome::Restored { backup, .. }) => backup,
            Status::Ended(Outcome::AlreadyRestored { backup, .. }) => backup.unwrap_or(0),
            _ => 0,
        };
        let step = invocation(status, &operation, reported);
        Attempt {
            command_id: names::command_id(command),
            requested_at: launched_at + Duration::seconds(command.into()),
            progress: attempt::progress(&step.status, Some(&step), &operation),
        }
    });
    let limit = match question.waited {
        Waited::NotLong => 0,
        Waited::PastReady => budget::SSM_READY,
        Waited::PastFence => budget::FENCE,
        Waited::PastBoth => budget::SSM_READY + budget::FENCE,
        Waited::PastCap => budget::HARD_CAP,
    };
    Facts {
        now: launched_at + Duration::seconds(i64::from(limit) + 1),
        instance_id: names::instance(question.node),
        group: "dtr".to_owned(),
        standing: match question.standing {
            Standing::Waiting => shipped::Standing::Waiting,
            other => shipped::Standing::Elsewhere(word(other)),
        },
        application: Ok(names::application()),
        root_volume_replaced: false,
        launched_at,
        predecessor: question.predecessor.map(|predecessor| match predecessor {
            Fence::Leaving(node) => shipped::Predecessor::Leaving(names::instance(node)),
            Fence::Active(node) => shipped::Predecessor::Active(names::instance(node)),
        }),
        agent: match question.agent {
            Agent::Unregistered => shipped::Agent::Unregistered,
            Agent::Online => shipped::Agent::Online,
            Agent::Lost => shipped::Agent::Lost,
        },
        attempts: attempts.collect(),
    }
}

fn word(standing: Standing) -> String {
    match standing {
        Standing::Waiting => LifecycleState::PendingWait.to_string(),
        Standing::Serving => LifecycleState::InService.to_string(),
        Standing::Leaving => LifecycleState::TerminatingWait.to_string(),
        Standing::Left => LifecycleState::TerminatingProceed.to_string(),
        Standing::Gone => "in no group".to_owned(),
    }
}

/// What an application has to restore from: its manifests, newest first, and its parameter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct SourceQuestion {
    pub(in crate::model) manifests: Vec<Listed>,
    pub(in crate::model) parameter: bool,
}

/// A manifest that is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::model) struct Listed {
    pub(in crate::model) backup: BackupNumber,
    pub(in crate::model) run: RunNumber,
    /// The node that was backed up.
    pub(in crate::model) of: NodeNumber,
    pub(in crate::model) readable: bool,
}

/// What a node reports that is restored, and what is listed then.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct AdmissionQuestion {
    pub(in crate::model) node: NodeNumber,
    /// None where it was started empty.
    pub(in crate::model) restored: Option<BackupNumber>,
    pub(in crate::model) skipped: Vec<BackupNumber>,
    pub(in crate::model) stock: SourceQuestion,
}

/// What an instance is restored from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::model) enum Source {
    Restore {
        candidates: Vec<BackupNumber>,
        passed_over: bool,
    },
    FirstBoot,
    Abandon {
        because: &'static str,
        permanent: bool,
    },
}

/// Asks what an instance is restored from.
pub(in crate::model) fn source(question: &SourceQuestion) -> Source {
    SOURCES.with(|answers| {
        answers.of(question, |question| {
            let stock = Stock {
                shared_with: None,
                backups: backups(question),
            };
            match choose::source(&stock) {
                choose::Source::Restore {
                    candidates,
                    passed_over,
                } => Source::Restore {
                    candidates: candidates
                        .iter()
                        .map(|candidate| names::backup(&candidate.backup_id))
                        .collect(),
                    passed_over: !passed_over.is_empty(),
                },
                choose::Source::FirstBoot => Source::FirstBoot,
                choose::Source::Abandon(reason) => Source::Abandon {
                    because: reason.kind(),
                    permanent: reason.permanent(),
                },
            }
        })
    })
}

/// Asks whether a restored instance is kept out of service, since a newer backup was committed meanwhile.
pub(in crate::model) fn is_overtaken(question: &AdmissionQuestion) -> bool {
    OVERTAKEN.with(|answers| {
        answers.of(question, |question| {
            let report = restore_report(
                names::launch_operation(question.node),
                RestoreOutcome::AlreadyRestored {
                    backup_id: question.restored.map(names::backup_id),
                },
                question.skipped.iter().copied(),
            );
            let instance = names::instance(question.node);
            choose::overtaken(&instance, &report, &backups(&question.stock)).is_some()
        })
    })
}

fn backups(question: &SourceQuestion) -> Backups {
    if question.manifests.is_empty() {
        return if question.parameter {
            Backups::Gone
        } else {
            Backups::NeverAny
        };
    }
    let mut committed = Vec::new();
    for &Listed {
        backup,
        run,
        of,
        readable,
    } in &question.manifests
    {
        let backup_id = names::backup_id(backup);
        let manifest = if readable {
            Readable::Yes {
                candidate: Candidate {
                    backup_id: backup_id.clone(),
                    run_id: names::run_id(run),
                    index_sha256: sha256(),
                    index_version: None,
                },
                instance_id: names::instance(of),
            }
        } else {
            Readable::No("it is damaged".to_owned())
        };
        committed.push(Committed {
            backup_id,
            manifest,
        });
        if choose::is_enough(&committed) {
            break;
        }
    }
    Backups::Committed(committed)
}
