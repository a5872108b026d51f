//! What the end of a backup command means.

use shared::report::{FailureReport, RestoreOutcome, RestoreReport};

use super::*;

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
    assert_eq!(on_finished(&facts), Ending::TooLate(backup_id()));
    // A final backup that is repeated much later has a new command and an old name.
    let report = backup_report("final-i-00000001", "20261122T021500.000Z");
    assert_eq!(
        on_finished(&succeeded(Purpose::Final, &Report::Backup(report))),
        Ending::TooLate("20261122T021500.000Z".parse().unwrap())
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
}
