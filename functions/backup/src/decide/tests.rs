//! The decisions as tables, and what no input may make of them.

use proptest::prelude::*;
use shared::report::{FailureReport, RestoreOutcome, RestoreReport};
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-23 02:20:00 UTC);

fn instance(number: u32) -> InstanceId {
    format!("i-{number:08x}").parse().unwrap()
}

fn command_id() -> CommandId {
    "6d2f0f0e-5d0b-4f0a-9b57-0d5b1a3f2c11".parse().unwrap()
}

fn group() -> GroupFacts {
    GroupFacts {
        stack: Ok("dtr".parse().unwrap()),
        rivals: Vec::new(),
        in_service: vec![instance(1)],
        ping: Some(Ping::Online),
        executing: None,
        requested: None,
    }
}

#[test]
fn a_tick_backs_up_the_one_instance_in_service() {
    let expected = Start::Start {
        stack: "dtr".parse().unwrap(),
        instance: instance(1),
    };
    assert_eq!(on_tick(&group()), expected);
}

#[test]
fn a_tick_skips_with_the_first_reason_that_holds() {
    let rivals = vec!["a".to_owned(), "b".to_owned()];
    let table = [
        (
            GroupFacts {
                stack: Err("bad".to_owned()),
                rivals: rivals.clone(),
                ..group()
            },
            Skip::MalformedTag("bad".to_owned()),
            true,
        ),
        (
            GroupFacts {
                rivals: rivals.clone(),
                in_service: vec![],
                ..group()
            },
            Skip::StackClaimedTwice(rivals),
            true,
        ),
        (
            GroupFacts {
                in_service: vec![],
                ping: None,
                ..group()
            },
            Skip::NoInstanceInService,
            false,
        ),
        (
            GroupFacts {
                in_service: vec![instance(1), instance(2)],
                ..group()
            },
            Skip::SeveralInService(vec![instance(1), instance(2)]),
            true,
        ),
        (
            GroupFacts {
                requested: Some(command_id()),
                executing: Some(command_id()),
                ..group()
            },
            Skip::AlreadyRequested(command_id()),
            false,
        ),
        (
            GroupFacts {
                executing: Some(command_id()),
                ping: None,
                ..group()
            },
            Skip::CommandExecuting(command_id()),
            false,
        ),
        (
            GroupFacts {
                ping: None,
                ..group()
            },
            Skip::AgentNotRegistered(instance(1)),
            false,
        ),
        (
            GroupFacts {
                ping: Some(Ping::ConnectionLost),
                ..group()
            },
            Skip::AgentConnectionLost(instance(1)),
            false,
        ),
    ];
    for (facts, reason, refusal) in table {
        assert_eq!(reason.is_refusal(), refusal, "{reason}");
        assert_eq!(on_tick(&facts), Start::Skip(reason));
    }
}

#[test]
fn a_late_tick_and_one_from_the_future_start_nothing() {
    let age = |seconds: i64| late(NOW - Duration::seconds(seconds), NOW);
    assert_eq!(age(0), None);
    assert_eq!(age(i64::from(budget::BACKUP_EVENT_AGE)), None);
    assert!(
        age(i64::from(budget::BACKUP_EVENT_AGE) + 1)
            .unwrap()
            .contains("601 s old")
    );
    assert_eq!(age(-60), None);
    assert!(age(-61).unwrap().contains("future"));
}

fn backup_id() -> BackupId {
    "20261123T021500.000Z".parse().unwrap()
}

fn backup_report(operation_id: &str, backup_id: &str) -> BackupReport {
    BackupReport {
        operation_id: operation_id.parse().unwrap(),
        backup_id: backup_id.parse().unwrap(),
        run_id: "0a1b2c3d".parse().unwrap(),
        index_sha256: "ab".repeat(32).parse().unwrap(),
        index_size: 1,
        databases: 1,
        tables: 1,
        rows: 1,
        bytes: 1,
        seconds: 1.0,
        peak_memory_kib: 1,
    }
}

fn finished(
    purpose: Purpose,
    status: InvocationStatus,
    response_code: i32,
    output: &str,
) -> FinishedFacts {
    let operation = match purpose {
        Purpose::Final => final_operation(&instance(1)).unwrap(),
        _ => backup_id().as_str().parse().unwrap(),
    };
    FinishedFacts {
        command: BackupCommand {
            operation_id: operation,
            backup_id: backup_id(),
            purpose,
        },
        requested_at: datetime!(2026-11-23 02:15:01 UTC),
        invocation: Invocation {
            status,
            response_code,
            output: output.to_owned(),
            errors: "the agent's last words\n".to_owned(),
        },
        now: NOW,
    }
}

fn succeeded(purpose: Purpose, report: &Report) -> FinishedFacts {
    finished(purpose, InvocationStatus::Success, 0, &report.to_line())
}

fn failed(exit_code: ExitCode) -> FinishedFacts {
    let report = Report::Failure(FailureReport {
        operation_id: "20261123T021500.000Z".parse().unwrap(),
        exit_code,
        message: "why".to_owned(),
    });
    let status = InvocationStatus::Failed;
    finished(
        Purpose::Scheduled,
        status,
        i32::from(exit_code.code()),
        &report.to_line(),
    )
}

#[test]
fn a_success_with_its_own_report_is_committed() {
    let report = backup_report("20261123T021500.000Z", "20261123T021500.000Z");
    let facts = succeeded(Purpose::Scheduled, &Report::Backup(report.clone()));
    assert_eq!(on_finished(&facts), Ending::Commit(report));
}

#[test]
fn a_final_backup_that_is_answered_again_keeps_its_first_name() {
    let report = backup_report("final-i-00000001", "20261123T021400.000Z");
    let facts = succeeded(Purpose::Final, &Report::Backup(report.clone()));
    assert_eq!(on_finished(&facts), Ending::Commit(report));
}

#[test]
fn a_report_of_another_operation_is_rejected() {
    let other = backup_report("20261123T020000.000Z", "20261123T021500.000Z");
    let renamed = backup_report("20261123T021500.000Z", "20261123T020000.000Z");
    let future = backup_report("final-i-00000001", "20261123T022200.000Z");
    let restore = Report::Restore(RestoreReport {
        operation_id: "20261123T021500.000Z".parse().unwrap(),
        outcome: RestoreOutcome::FirstBoot,
        skipped: vec![],
        seconds: 1.0,
        swap_seconds: 0.0,
        peak_memory_kib: 1,
    });
    for facts in [
        succeeded(Purpose::Scheduled, &Report::Backup(other)),
        succeeded(Purpose::Scheduled, &Report::Backup(renamed)),
        succeeded(Purpose::Final, &Report::Backup(future)),
        succeeded(Purpose::Scheduled, &restore),
        finished(
            Purpose::Scheduled,
            InvocationStatus::Success,
            0,
            "no report",
        ),
        finished(Purpose::Scheduled, InvocationStatus::Success, 0, ""),
    ] {
        let ending = on_finished(&facts);
        assert!(matches!(ending, Ending::Rejected(_)), "{ending:?}");
    }
}

#[test]
fn a_backup_is_not_committed_after_its_window() {
    let report = backup_report("20261123T021500.000Z", "20261123T021500.000Z");
    let mut facts = succeeded(Purpose::Scheduled, &Report::Backup(report));
    facts.now = facts.requested_at + seconds(budget::COMMIT_WINDOW) - Duration::seconds(1);
    assert!(matches!(on_finished(&facts), Ending::Commit(_)));
    facts.now = facts.requested_at + seconds(budget::COMMIT_WINDOW) + Duration::seconds(1);
    assert_eq!(on_finished(&facts), Ending::TooLate);
    // A final backup that is repeated much later has a new command and an old name.
    let report = backup_report("final-i-00000001", "20261122T021500.000Z");
    assert_eq!(
        on_finished(&succeeded(Purpose::Final, &Report::Backup(report))),
        Ending::TooLate
    );
}

#[test]
fn a_failure_is_what_the_node_says_it_is() {
    assert_eq!(on_finished(&failed(ExitCode::Busy)), Ending::Busy);
    assert_eq!(
        on_finished(&failed(ExitCode::NotRestored)),
        Ending::NotRestored("why".to_owned())
    );
    let expected = Ending::Failed {
        code: ExitCode::Dump,
        message: "why".to_owned(),
    };
    assert_eq!(on_finished(&failed(ExitCode::Dump)), expected);
}

#[test]
fn an_ending_without_a_report_is_told_by_ssm() {
    let errors = "the agent's last words".to_owned();
    let facts = finished(Purpose::Scheduled, InvocationStatus::Failed, 12, "");
    let expected = Ending::Failed {
        code: ExitCode::AgentMismatch,
        message: errors.clone(),
    };
    assert_eq!(on_finished(&facts), expected);
    for (status, code) in [
        (InvocationStatus::Failed, 1),
        (InvocationStatus::TimedOut, -1),
        (InvocationStatus::DeliveryTimedOut, -1),
        (InvocationStatus::Undeliverable, -1),
        (InvocationStatus::ExecutionTimedOut, 12),
        (InvocationStatus::Cancelled, -1),
    ] {
        let facts = finished(Purpose::Scheduled, status.clone(), code, "");
        assert_eq!(
            on_finished(&facts),
            Ending::Unreported {
                status,
                errors: errors.clone()
            }
        );
    }
    let facts = finished(Purpose::Scheduled, InvocationStatus::InProgress, -1, "");
    assert_eq!(
        on_finished(&facts),
        Ending::StillRunning(InvocationStatus::InProgress)
    );
}

#[test]
fn a_hook_is_answered_with_what_keeps_the_data() {
    use LifecycleResult::{Abandon, Continue};
    let table = [
        (FinalBackup::Committed, Some(Continue), Some(Continue)),
        (FinalBackup::NothingToSave, Some(Continue), Some(Continue)),
        (FinalBackup::Postponed, None, None),
        (FinalBackup::Failed, Some(Abandon), Some(Continue)),
    ];
    for (backup, retaining, plain) in table {
        assert_eq!(
            (answer(backup, true), answer(backup, false)),
            (retaining, plain),
            "{backup:?}"
        );
    }
}

fn terminating() -> TerminatingFacts {
    TerminatingFacts {
        state: Some(LifecycleState::TerminatingWait),
        ping: Some(Ping::Online),
        command: None,
        now: NOW,
    }
}

fn sent(seconds_ago: i64, status: Option<InvocationStatus>, busy: bool) -> TerminatingFacts {
    let requested_at = NOW - Duration::seconds(seconds_ago);
    let command = FinalCommand {
        command_id: command_id(),
        requested_at,
        status,
        busy,
    };
    TerminatingFacts {
        command: Some(command),
        ..terminating()
    }
}

#[test]
fn an_instance_in_its_terminate_hook_gets_one_final_backup_or_none() {
    use InvocationStatus::{Delayed, DeliveryTimedOut, Failed, InProgress, Pending, Success};
    let id = command_id();
    let table = [
        (terminating(), Terminating::Send),
        (
            TerminatingFacts {
                ping: None,
                ..terminating()
            },
            Terminating::GiveUp("its SSM agent is not registered"),
        ),
        (
            TerminatingFacts {
                ping: Some(Ping::ConnectionLost),
                ..terminating()
            },
            Terminating::GiveUp("its SSM agent does not answer"),
        ),
        (sent(1, None, false), Terminating::Wait(id.clone())),
        (sent(1, Some(Pending), false), Terminating::Wait(id.clone())),
        (
            sent(36, Some(Pending), false),
            Terminating::Cancel(id.clone()),
        ),
        (
            sent(36, Some(Delayed), false),
            Terminating::Cancel(id.clone()),
        ),
        (sent(36, None, false), Terminating::Cancel(id.clone())),
        (
            sent(600, Some(InProgress), false),
            Terminating::Wait(id.clone()),
        ),
        (
            sent(600, Some(Success), false),
            Terminating::Settle(id.clone()),
        ),
        (
            sent(600, Some(Failed), false),
            Terminating::Settle(id.clone()),
        ),
        (
            sent(40, Some(DeliveryTimedOut), false),
            Terminating::Settle(id),
        ),
        (sent(60, Some(Failed), true), Terminating::Send),
    ];
    for (facts, decision) in table {
        assert_eq!(on_terminating(&facts), decision, "{facts:?}");
    }
}

#[test]
fn an_instance_that_waits_no_longer_is_left_alone() {
    for state in LifecycleState::ALL {
        let facts = TerminatingFacts {
            state: Some(state.clone()),
            ..terminating()
        };
        let gone = [
            "Terminating:Proceed",
            "Terminating:Retained",
            "Terminated",
            "ReplacingRootVolume:Proceed",
            "Warmed:Terminating:Proceed",
            "Warmed:Terminated",
        ];
        let expected = if gone.contains(&state.as_str()) {
            Terminating::NothingWaits
        } else {
            Terminating::Send
        };
        assert_eq!(on_terminating(&facts), expected, "{state}");
    }
    let left = TerminatingFacts {
        state: None,
        ..terminating()
    };
    assert_eq!(on_terminating(&left), Terminating::NothingWaits);
}

#[test]
fn adopting_over_existing_backups_has_to_be_said() {
    let newest = backup_id();
    assert_eq!(on_adopt(None, false), Ok(()));
    assert_eq!(on_adopt(Some(&newest), true), Ok(()));
    let refusal = on_adopt(Some(&newest), false).unwrap_err();
    assert!(refusal.contains(newest.as_str()) && refusal.contains("over_existing_backups"));
}

fn any_status() -> impl Strategy<Value = InvocationStatus> {
    let words = [
        "Pending",
        "InProgress",
        "Success",
        "Failed",
        "TimedOut",
        "Cancelled",
        "Undeliverable",
        "Delivery Timed Out",
    ];
    prop::sample::select(words.to_vec()).prop_map(InvocationStatus::from)
}

fn any_output() -> impl Strategy<Value = String> {
    let ids = [
        "20261123T021500.000Z",
        "20261123T020000.000Z",
        "20261122T021500.000Z",
        "20261124T021500.000Z",
    ];
    let id = prop::sample::select(ids.to_vec());
    let operation =
        prop::sample::select(vec![ids[0], ids[1], "final-i-00000001", "final-i-00000002"]);
    let code = prop::sample::select(ExitCode::ALL.to_vec());
    prop_oneof![
        (operation, id)
            .prop_map(|(operation, id)| Report::Backup(backup_report(operation, id)).to_line()),
        code.prop_map(|code| failed(code).invocation.output),
        "\\PC{0,200}",
        "\\{\"report\":\\PC{0,200}",
    ]
}

fn any_purpose() -> impl Strategy<Value = Purpose> {
    prop::sample::select(vec![
        Purpose::Scheduled,
        Purpose::Manual,
        Purpose::Final,
        Purpose::Adopt,
    ])
}

proptest! {
    #[test]
    fn a_rejected_report_never_yields_a_manifest(
        purpose in any_purpose(),
        status in any_status(),
        code in -1i32..300,
        output in any_output(),
        later in -7_200i64..200_000,
    ) {
        let mut facts = finished(purpose, status.clone(), code, &output);
        facts.now = facts.requested_at + Duration::seconds(later);
        if let Ending::Commit(report) = on_finished(&facts) {
            prop_assert_eq!(status, InvocationStatus::Success);
            prop_assert_eq!(&report.operation_id, &facts.command.operation_id);
            prop_assert!(report.backup_id == facts.command.backup_id || purpose == Purpose::Final);
            let window = seconds(budget::COMMIT_WINDOW);
            prop_assert!(later <= window.whole_seconds());
            prop_assert!(facts.now - report.backup_id.time() <= window);
            prop_assert!(report.backup_id.time() - facts.now <= seconds(budget::MARGIN));
        }
    }

    #[test]
    fn a_hook_is_never_answered_while_its_final_backup_may_come(
        age in 0i64..10_000,
        status in any_status(),
        busy in any::<bool>(),
        retains in any::<bool>(),
    ) {
        let facts = sent(age, Some(status.clone()), busy);
        let decision = on_terminating(&facts);
        prop_assert!(!matches!(decision, Terminating::GiveUp(_) | Terminating::NothingWaits));
        if !status.is_finished() && !status.is_undelivered() && !busy {
            prop_assert_eq!(decision, Terminating::Wait(command_id()));
        }
        prop_assert_eq!(answer(FinalBackup::Committed, retains), Some(LifecycleResult::Continue));
        prop_assert_eq!(answer(FinalBackup::Postponed, retains), None);
    }
}
