mod invariants;

use super::*;
use shared::aws::ssm::CommandEnd;
use shared::exit_code::ExitCode;
use shared::report::RestoreOutcome;
use shared::verdict::{Cause, CommandFailure};
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
fn ready(waited: u32) -> LaunchFacts {
    LaunchFacts {
        now: LAUNCHED + Duration::seconds(waited.into()),
        instance_id: instance_id(),
        group: "dtr".to_owned(),
        state: Some(LifecycleState::PendingWait),
        application: Ok("dtr".parse().unwrap()),
        root_volume_replaced: false,
        launched_at: LAUNCHED,
        predecessor: None,
        ping: Some(Ping::Online),
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
        exceptions: shared::report::exceptions::ReportedExceptions::default(),
        seconds: 1.0,
        swap_seconds: 0.0,
        peak_memory_kib: 1,
    }
}

fn failed(cause: Cause) -> Verdict<RestoreReport> {
    Verdict::Failed(CommandFailure {
        cause,
        message: "reason".to_owned(),
    })
}

/// Returns attempts that were sent one second after the other.
fn attempts(verdict: impl IntoIterator<Item = Verdict<RestoreReport>>) -> Vec<RestoreAttempt> {
    let numbered = (0_u8..).zip(verdict);
    numbered
        .map(|(number, verdict)| RestoreAttempt {
            command_id: command_id(number),
            requested_at: LAUNCHED + Duration::seconds(number.into()),
            verdict,
        })
        .collect()
}

fn attempted(verdict: impl IntoIterator<Item = Verdict<RestoreReport>>) -> LaunchFacts {
    LaunchFacts {
        attempts: attempts(verdict),
        ..ready(60)
    }
}

/// Returns the decision's name, or the reason's kind for an abandoned instance.
fn decided(facts: &LaunchFacts) -> &'static str {
    match decide(facts) {
        LaunchDecision::Abandon(reason) => reason.kind().as_str(),
        decision => decision.name(),
    }
}

#[test]
fn an_instance_outside_the_launch_hook_is_not_changed() {
    let states = ["InService", "Pending:Proceed", "Terminating:Wait"];
    for state in states.map(Some).into_iter().chain([None]) {
        let facts = LaunchFacts {
            state: state.map(LifecycleState::from),
            root_volume_replaced: true,
            application: Err("not read".to_owned()),
            attempts: attempts([Verdict::Executing]),
            ..ready(60)
        };
        assert_eq!(decided(&facts), "already-resolved", "{state:?}");
    }
}

#[test]
fn the_hook_of_a_group_without_an_application_is_not_answered() {
    for state in [
        LifecycleState::PendingWait,
        LifecycleState::WarmedPendingWait,
    ] {
        let facts = LaunchFacts {
            state: Some(state),
            application: Err("tag it".to_owned()),
            ..ready(60)
        };
        assert_eq!(decided(&facts), "not-protected");
    }
}

#[test]
fn an_instance_passes_into_the_warm_pool_and_is_restored_when_it_leaves_it() {
    let mut facts = ready(60);
    facts.state = Some(LifecycleState::WarmedPendingWait);
    assert_eq!(decided(&facts), "pass-into-warm-pool");
    facts.state = Some(LifecycleState::PendingWait);
    assert_eq!(decided(&facts), "choose-backup");
}

#[test]
fn a_replaced_root_volume_is_abandoned_even_after_a_restore() {
    let facts = LaunchFacts {
        root_volume_replaced: true,
        ..attempted([Verdict::Succeeded(report())])
    };
    assert_eq!(decided(&facts), "RootVolumeReplaced");
}

#[test]
fn the_agent_may_register_within_its_time_limit() {
    let both = budget::SSM_READY + budget::FENCE;
    let cases = [
        (None, 0, "wait-for-agent"),
        (None, budget::SSM_READY, "wait-for-agent"),
        (None, budget::SSM_READY + 1, "AgentNeverCame"),
        (
            Some(Ping::ConnectionLost),
            budget::SSM_READY + 1,
            "wait-for-agent",
        ),
        (Some(Ping::ConnectionLost), both, "wait-for-agent"),
        (Some(Ping::ConnectionLost), both + 1, "AgentLost"),
        (Some(Ping::Online), budget::SSM_READY + 1, "choose-backup"),
        (Some(Ping::Online), both + 1, "choose-backup"),
    ];
    for (ping, waited, expected) in cases {
        let facts = LaunchFacts {
            ping,
            ..ready(waited)
        };
        assert_eq!(decided(&facts), expected, "{ping:?} after {waited} s");
    }
}

#[test]
fn a_refused_command_means_that_the_agent_is_not_ready_yet() {
    let both = budget::SSM_READY + budget::FENCE;
    assert_eq!(agent_silent(&ready(both)), None);
    assert_eq!(agent_silent(&ready(both + 1)), Some(Reason::AgentLost));
}

#[test]
fn a_terminating_predecessor_is_awaited_until_the_fence_ends() {
    let fenced = |waited| LaunchFacts {
        predecessor: Some(Predecessor::Terminating(other())),
        ..ready(waited)
    };
    let wait = LaunchDecision::WaitForPredecessor {
        predecessor: other(),
    };
    assert_eq!(decide(&fenced(0)), wait);
    assert_eq!(decide(&fenced(budget::FENCE)), wait);
    let go = |fence_broken_by| LaunchDecision::ChooseBackup { fence_broken_by };
    assert_eq!(decide(&fenced(budget::FENCE + 1)), go(Some(other())));
    assert_eq!(decide(&ready(budget::FENCE + 1)), go(None));
}

#[test]
fn no_node_is_restored_while_another_one_is_in_service() {
    for ping in [Some(Ping::Online), Some(Ping::ConnectionLost)] {
        let beside = |waited| LaunchFacts {
            predecessor: Some(Predecessor::Active(other())),
            ping,
            ..ready(waited)
        };
        assert_eq!(decided(&beside(0)), "wait-for-predecessor");
        assert_eq!(decided(&beside(budget::FENCE)), "wait-for-predecessor");
        assert_eq!(decided(&beside(budget::FENCE + 1)), "PredecessorActive");
    }
}

#[test]
fn a_rebooting_agent_does_not_shorten_the_fence() {
    let facts = LaunchFacts {
        predecessor: Some(Predecessor::Terminating(other())),
        ping: Some(Ping::ConnectionLost),
        ..ready(budget::SSM_READY + 1)
    };
    assert_eq!(decided(&facts), "wait-for-predecessor");
}

#[test]
fn any_success_admits_the_instance() {
    let success = || Verdict::Succeeded(report());
    let cases = [
        vec![success()],
        vec![success(), failed(Cause::Agent(ExitCode::Busy))],
        vec![failed(Cause::Command(CommandEnd::TimedOut)), success()],
        vec![Verdict::Executing, success()],
        vec![Verdict::Pending, success()],
    ];
    for verdict in cases {
        assert_eq!(
            decided(&attempted(verdict.clone())),
            "admit-restored",
            "{verdict:?}"
        );
    }
}

#[test]
fn the_first_success_is_reported() {
    let mut found_done = report();
    found_done.outcome = RestoreOutcome::AlreadyRestored { backup_id: None };
    let mut facts = attempted([Verdict::Succeeded(report()), Verdict::Succeeded(found_done)]);
    // SSM lists the newest first.
    facts.attempts.reverse();
    let expected = LaunchDecision::Admit {
        command_id: command_id(0),
        report: report(),
    };
    assert_eq!(decide(&facts), expected);
}

#[test]
fn neither_the_fence_nor_a_lost_agent_delays_a_success() {
    let facts = LaunchFacts {
        ping: Some(Ping::ConnectionLost),
        predecessor: Some(Predecessor::Terminating(other())),
        ..attempted([Verdict::Succeeded(report())])
    };
    assert_eq!(decided(&facts), "admit-restored");
}

#[test]
fn only_an_executing_command_with_an_online_agent_gets_a_heartbeat() {
    let cases = [
        (Verdict::Executing, Some(Ping::Online), true),
        (Verdict::Executing, Some(Ping::ConnectionLost), false),
        (Verdict::Executing, None, false),
        (Verdict::Pending, Some(Ping::Online), false),
    ];
    for (verdict, ping, heartbeat) in cases {
        let facts = LaunchFacts {
            ping,
            ..attempted([failed(Cause::Agent(ExitCode::Busy)), verdict.clone()])
        };
        let command_id = command_id(1);
        let expected = LaunchDecision::AlreadyRunning {
            command_id,
            heartbeat,
        };
        assert_eq!(decide(&facts), expected, "{verdict:?} {ping:?}");
    }
}

#[test]
fn no_launch_outlasts_the_hard_cap() {
    for verdict in [
        Verdict::Executing,
        Verdict::Pending,
        Verdict::Succeeded(report()),
    ] {
        let at = |waited| LaunchFacts {
            attempts: attempts([verdict.clone()]),
            ..ready(waited)
        };
        assert_ne!(decided(&at(budget::HARD_CAP)), "HardCap", "{verdict:?}");
        assert_eq!(decided(&at(budget::HARD_CAP + 1)), "HardCap", "{verdict:?}");
    }
}

#[test]
fn a_failed_restore_is_abandoned_for_its_newest_failure() {
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
        (vec![busy(), Verdict::Executing], "already-running"),
        (vec![disk(), Verdict::Pending], "already-running"),
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
    for (verdict, expected) in cases {
        assert_eq!(
            decided(&attempted(verdict.clone())),
            expected,
            "{verdict:?}"
        );
    }
}

#[test]
fn every_reason_has_a_kind_a_remedy_and_a_text() {
    let problem = || "reason".to_owned();
    let failure = |cause| Reason::RestoreFailed {
        command_id: command_id(0),
        failure: CommandFailure {
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
    let kinds: std::collections::BTreeSet<_> = reasons
        .iter()
        .map(|reason| reason.kind().as_str())
        .collect();
    assert_eq!(kinds.len(), reasons.len(), "{kinds:?}");
    for reason in &reasons {
        assert!(reason.kind().remedy().ends_with('.'), "{reason:?}");
        assert!(!reason.to_string().ends_with('.'), "{reason}");
    }
}
