mod invariants;

use super::*;
use crate::attempt::{Cause, Failure};
use shared::aws::ssm::CommandEnd;
use shared::report::{ExitCode, RestoreOutcome};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

const LAUNCHED: OffsetDateTime = datetime!(2026-11-23 02:15:00 UTC);

fn instance_id() -> InstanceId {
    "i-0123456789abcdef0".parse().unwrap()
}

fn other() -> InstanceId {
    "i-0fedcba9876543210".parse().unwrap()
}

/// An instance that is ready for its restore, this many seconds after its launch.
fn ready(waited: u32) -> Facts {
    Facts {
        now: LAUNCHED + Duration::seconds(waited.into()),
        instance_id: instance_id(),
        group: "dtr".to_owned(),
        standing: Standing::Waiting,
        application: Ok("dtr".parse().unwrap()),
        root_volume_replaced: false,
        launched_at: LAUNCHED,
        predecessor: None,
        agent: Agent::Online,
        attempts: vec![],
    }
}

fn command_id(number: u8) -> CommandId {
    format!("00000000-0000-4000-8000-0000000000{number:02x}")
        .parse()
        .unwrap()
}

fn report() -> RestoreReport {
    RestoreReport {
        operation_id: "launch-i-0123456789abcdef0".parse().unwrap(),
        outcome: RestoreOutcome::FirstBoot,
        skipped: vec![],
        seconds: 1.0,
        swap_seconds: 0.0,
        peak_memory_kib: 1,
    }
}

fn failed(cause: Cause) -> Progress {
    Progress::Failed(Failure {
        cause,
        message: "words".to_owned(),
    })
}

/// Makes attempts of which each was sent a second after the one before.
fn attempts(progress: impl IntoIterator<Item = Progress>) -> Vec<Attempt> {
    let numbered = (0_u8..).zip(progress);
    numbered
        .map(|(number, progress)| Attempt {
            command_id: command_id(number),
            requested_at: LAUNCHED + Duration::seconds(number.into()),
            progress,
        })
        .collect()
}

fn attempted(progress: impl IntoIterator<Item = Progress>) -> Facts {
    Facts {
        attempts: attempts(progress),
        ..ready(60)
    }
}

/// Says what was decided, in a word; a reason's kind for an instance that is abandoned.
fn decided(facts: &Facts) -> &'static str {
    match instance(facts) {
        Decision::Abandon(reason) => reason.kind(),
        decision => decision.name(),
    }
}

#[test]
fn an_instance_that_waits_no_longer_is_left_alone() {
    for state in [
        "InService",
        "Pending:Proceed",
        "Terminating:Wait",
        "in no group",
    ] {
        let facts = Facts {
            standing: Standing::Elsewhere(state.to_owned()),
            root_volume_replaced: true,
            application: Err("not looked at".to_owned()),
            attempts: attempts([Progress::Executing]),
            ..ready(60)
        };
        assert_eq!(decided(&facts), "already-resolved", "{state}");
    }
}

#[test]
fn a_group_that_names_no_application_gets_no_answer() {
    for standing in [Standing::Waiting, Standing::WaitingForWarmPool] {
        let facts = Facts {
            standing,
            application: Err("tag it".to_owned()),
            ..ready(60)
        };
        assert_eq!(decided(&facts), "not-protected");
    }
}

#[test]
fn an_instance_passes_into_the_warm_pool_and_is_restored_when_it_leaves_it() {
    let mut facts = ready(60);
    facts.standing = Standing::WaitingForWarmPool;
    assert_eq!(decided(&facts), "pass-into-warm-pool");
    facts.standing = Standing::Waiting;
    assert_eq!(decided(&facts), "choose-backup");
}

#[test]
fn a_replaced_root_volume_is_refused_whatever_was_restored_before() {
    let facts = Facts {
        root_volume_replaced: true,
        ..attempted([Progress::Succeeded(report())])
    };
    assert_eq!(decided(&facts), "RootVolumeReplaced");
}

#[test]
fn the_agent_is_waited_for_within_its_budget() {
    let both = budget::SSM_READY + budget::FENCE;
    let cases = [
        (Agent::Unregistered, 0, "wait-for-agent"),
        (Agent::Unregistered, budget::SSM_READY, "wait-for-agent"),
        (Agent::Unregistered, budget::SSM_READY + 1, "AgentNeverCame"),
        (Agent::Lost, budget::SSM_READY + 1, "wait-for-agent"),
        (Agent::Lost, both, "wait-for-agent"),
        (Agent::Lost, both + 1, "AgentLost"),
        (Agent::Online, budget::SSM_READY + 1, "choose-backup"),
        (Agent::Online, both + 1, "choose-backup"),
    ];
    for (agent, waited, expected) in cases {
        let facts = Facts {
            agent,
            ..ready(waited)
        };
        assert_eq!(decided(&facts), expected, "{agent:?} after {waited} s");
    }
}

#[test]
fn a_refused_command_means_that_the_agent_is_not_ready_yet() {
    let both = budget::SSM_READY + budget::FENCE;
    assert_eq!(agent_silent(&ready(both)), Decision::WaitForAgent);
    let abandoned = Decision::Abandon(Reason::AgentLost);
    assert_eq!(agent_silent(&ready(both + 1)), abandoned);
}

#[test]
fn a_terminating_predecessor_is_waited_for_until_the_fence_is_over() {
    let fenced = |waited| Facts {
        predecessor: Some(Predecessor::Leaving(other())),
        ..ready(waited)
    };
    let wait = Decision::WaitForPredecessor {
        predecessor: other(),
    };
    assert_eq!(instance(&fenced(0)), wait);
    assert_eq!(instance(&fenced(budget::FENCE)), wait);
    let go = |fence_broken_by| Decision::ChooseBackup { fence_broken_by };
    assert_eq!(instance(&fenced(budget::FENCE + 1)), go(Some(other())));
    assert_eq!(instance(&ready(budget::FENCE + 1)), go(None));
}

#[test]
fn no_node_is_restored_beside_one_that_serves() {
    for agent in [Agent::Online, Agent::Lost] {
        let beside = |waited| Facts {
            predecessor: Some(Predecessor::Active(other())),
            agent,
            ..ready(waited)
        };
        assert_eq!(decided(&beside(0)), "wait-for-predecessor");
        assert_eq!(decided(&beside(budget::FENCE)), "wait-for-predecessor");
        assert_eq!(decided(&beside(budget::FENCE + 1)), "PredecessorActive");
    }
}

#[test]
fn a_rebooting_agent_does_not_shorten_the_fence() {
    let facts = Facts {
        predecessor: Some(Predecessor::Leaving(other())),
        agent: Agent::Lost,
        ..ready(budget::SSM_READY + 1)
    };
    assert_eq!(decided(&facts), "wait-for-predecessor");
}

#[test]
fn any_success_lets_the_instance_into_service() {
    let success = || Progress::Succeeded(report());
    let cases = [
        vec![success()],
        vec![success(), failed(Cause::Agent(ExitCode::Busy))],
        vec![failed(Cause::Command(CommandEnd::TimedOut)), success()],
        vec![Progress::Executing, success()],
        vec![Progress::Unclear, success()],
    ];
    for progress in cases {
        assert_eq!(
            decided(&attempted(progress.clone())),
            "continue",
            "{progress:?}"
        );
    }
}

#[test]
fn the_success_that_did_the_work_is_the_one_that_is_told() {
    let mut found_done = report();
    found_done.outcome = RestoreOutcome::AlreadyRestored { backup_id: None };
    let mut facts = attempted([
        Progress::Succeeded(report()),
        Progress::Succeeded(found_done),
    ]);
    // SSM lists the newest first.
    facts.attempts.reverse();
    let expected = Decision::Continue {
        command_id: command_id(0),
        report: report(),
    };
    assert_eq!(instance(&facts), expected);
}

#[test]
fn a_fence_or_a_silent_agent_does_not_undo_a_success() {
    let facts = Facts {
        agent: Agent::Lost,
        predecessor: Some(Predecessor::Leaving(other())),
        ..attempted([Progress::Succeeded(report())])
    };
    assert_eq!(decided(&facts), "continue");
}

#[test]
fn only_a_command_with_signs_of_life_gets_a_heartbeat() {
    let cases = [
        (Progress::Executing, Agent::Online, true),
        (Progress::Executing, Agent::Lost, false),
        (Progress::Executing, Agent::Unregistered, false),
        (Progress::Unclear, Agent::Online, false),
    ];
    for (progress, agent, heartbeat) in cases {
        let facts = Facts {
            agent,
            ..attempted([failed(Cause::Agent(ExitCode::Busy)), progress.clone()])
        };
        let command_id = command_id(1);
        let expected = Decision::AlreadyRunning {
            command_id,
            heartbeat,
        };
        assert_eq!(instance(&facts), expected, "{progress:?} {agent:?}");
    }
}

#[test]
fn nothing_is_kept_waiting_beyond_the_hard_cap() {
    for progress in [
        Progress::Executing,
        Progress::Unclear,
        Progress::Succeeded(report()),
    ] {
        let at = |waited| Facts {
            attempts: attempts([progress.clone()]),
            ..ready(waited)
        };
        assert_ne!(decided(&at(budget::HARD_CAP)), "HardCap", "{progress:?}");
        assert_eq!(
            decided(&at(budget::HARD_CAP + 1)),
            "HardCap",
            "{progress:?}"
        );
    }
}

#[test]
fn a_failed_restore_is_abandoned_for_its_newest_cause() {
    let busy = || failed(Cause::Agent(ExitCode::Busy));
    let disk = || failed(Cause::Agent(ExitCode::DiskTooSmall));
    let cases = [
        (vec![disk()], "DiskTooSmall"),
        (
            vec![failed(Cause::Command(CommandEnd::TimedOut)), disk()],
            "DiskTooSmall",
        ),
        (
            vec![disk(), failed(Cause::Command(CommandEnd::TimedOut))],
            "CommandTimedOut",
        ),
        (vec![disk(), busy()], "DiskTooSmall"),
        (vec![busy(), disk()], "DiskTooSmall"),
        (vec![busy(), busy()], "Busy"),
        (vec![busy(), Progress::Executing], "already-running"),
        (vec![disk(), Progress::Unclear], "already-running"),
        (vec![failed(Cause::Contract)], "Contract"),
        (
            vec![failed(Cause::Command(CommandEnd::Cancelled))],
            "CommandCancelled",
        ),
        (
            vec![failed(Cause::Command(CommandEnd::Undeliverable))],
            "CommandUndeliverable",
        ),
        (
            vec![failed(Cause::Command(CommandEnd::Failed))],
            "CommandFailed",
        ),
    ];
    for (progress, expected) in cases {
        assert_eq!(
            decided(&attempted(progress.clone())),
            expected,
            "{progress:?}"
        );
    }
}

#[test]
fn every_reason_says_what_happened_and_what_to_do() {
    let problem = || "words".to_owned();
    let failure = |cause| Reason::RestoreFailed {
        command_id: command_id(0),
        failure: Failure {
            cause,
            message: problem(),
        },
    };
    let reasons = [
        Reason::RootVolumeReplaced,
        Reason::ApplicationShared { with: problem() },
        Reason::AgentNeverCame,
        Reason::AgentLost,
        Reason::PredecessorActive {
            instance_id: other(),
        },
        Reason::BackupsGone,
        Reason::BackupsUnknown { problem: problem() },
        Reason::NewerSchema {
            backup_id: "20261123T021500.000Z".parse().unwrap(),
            problem: problem(),
        },
        Reason::NoReadableManifest {
            looked_at: 3,
            problem: problem(),
        },
        Reason::HardCap,
        failure(Cause::Command(CommandEnd::TimedOut)),
        failure(Cause::Command(CommandEnd::Cancelled)),
        failure(Cause::Command(CommandEnd::Undeliverable)),
        failure(Cause::Command(CommandEnd::Failed)),
        failure(Cause::Contract),
        failure(Cause::Agent(ExitCode::Stalled)),
    ];
    let kinds: std::collections::BTreeSet<_> = reasons.iter().map(Reason::kind).collect();
    assert_eq!(kinds.len(), reasons.len(), "{kinds:?}");
    for reason in &reasons {
        assert!(reason.remedy().ends_with('.'), "{reason:?}");
        assert!(!reason.to_string().ends_with('.'), "{reason}");
    }
}
