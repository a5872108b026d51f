//! Which end of a backup command leads to a commit, and that no other one does.

use proptest::prelude::*;
use shared::id::InstanceId;
use shared::operation::Operation;
use shared::report::{FailureReport, Report, RestoreOutcome, RestoreReport};
use time::Duration;
use time::macros::datetime;

use super::*;
use crate::testing::{any_status, backup_report};

const NOW: OffsetDateTime = datetime!(2026-11-23 02:20:00 UTC);

fn instance() -> InstanceId {
    "i-00000001".parse().unwrap()
}

fn backup_id() -> BackupId {
    "20261123T021500.000Z".parse().unwrap()
}

fn finished(
    purpose: Purpose,
    status: InvocationStatus,
    response_code: i32,
    output: &str,
) -> FinishedFacts {
    let operation = match purpose {
        Purpose::Final => Operation::FinalBackup(instance()),
        _ => Operation::Backup(backup_id()),
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
            errors: "pg_dump: error: gave up\n".to_owned(),
        },
        now: NOW,
    }
}

fn succeeded(purpose: Purpose, report: &Report) -> FinishedFacts {
    finished(purpose, InvocationStatus::Success, 0, &report.to_line())
}

fn failed(exit_code: ExitCode) -> FinishedFacts {
    failed_as("20261123T021500.000Z", exit_code)
}

fn failed_as(operation_id: &str, exit_code: ExitCode) -> FinishedFacts {
    let report = Report::Failure(FailureReport {
        operation_id: operation_id.parse().unwrap(),
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
fn a_final_backup_that_is_reported_again_keeps_its_first_id() {
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
        exceptions: shared::report::exceptions::ReportedExceptions::default(),
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
        let Ending::Failed(failure) = &ending else {
            panic!("{ending:?}");
        };
        assert_eq!(failure.cause, Cause::Contract, "{failure:?}");
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
    // A final backup that is sent again much later has a new command and an old id.
    let report = backup_report("final-i-00000001", "20261122T021500.000Z");
    assert_eq!(
        on_finished(&succeeded(Purpose::Final, &Report::Backup(report))),
        Ending::TooLate("20261122T021500.000Z".parse().unwrap())
    );
}

fn failure(cause: Cause, message: &str) -> CommandFailure {
    CommandFailure {
        cause,
        message: message.to_owned(),
    }
}

#[test]
fn a_failure_has_the_cause_that_the_agent_reports() {
    assert_eq!(on_finished(&failed(ExitCode::Busy)), Ending::Busy);
    let not_restored = failure(Cause::Agent(ExitCode::NotRestored), "why");
    assert_eq!(
        on_finished(&failed(ExitCode::NotRestored)),
        Ending::NotRestored(not_restored)
    );
    let dump = failure(Cause::Agent(ExitCode::Dump), "why");
    assert_eq!(on_finished(&failed(ExitCode::Dump)), Ending::Failed(dump));
}

#[test]
fn a_failure_report_of_another_operation_is_not_one_of_this_command() {
    let mut other = failed_as("20261123T020000.000Z", ExitCode::Busy);
    other.invocation.response_code = i32::from(ExitCode::Dump.code());
    let message = "exit status 21 without a report of this operation; last line of standard error: \
                   pg_dump: error: gave up";
    let expected = failure(Cause::Agent(ExitCode::Dump), message);
    assert_eq!(on_finished(&other), Ending::Failed(expected));
}

#[test]
fn an_end_without_a_report_has_the_cause_that_ssm_reports() {
    let facts = finished(Purpose::Scheduled, InvocationStatus::Failed, 12, "");
    let message = "exit status 12 without a report of this operation; last line of standard error: \
                   pg_dump: error: gave up";
    let expected = failure(Cause::Agent(ExitCode::AgentMismatch), message);
    assert_eq!(on_finished(&facts), Ending::Failed(expected));
    for (status, code, end) in [
        (InvocationStatus::Failed, 1, CommandEnd::Failed),
        (InvocationStatus::TimedOut, -1, CommandEnd::TimedOut),
        (InvocationStatus::DeliveryTimedOut, -1, CommandEnd::TimedOut),
        (
            InvocationStatus::Undeliverable,
            -1,
            CommandEnd::Undeliverable,
        ),
        (
            InvocationStatus::ExecutionTimedOut,
            12,
            CommandEnd::TimedOut,
        ),
    ] {
        let facts = finished(Purpose::Scheduled, status.clone(), code, "");
        let ending = on_finished(&facts);
        let Ending::Failed(failure) = &ending else {
            panic!("{status}: {ending:?}");
        };
        assert_eq!(failure.cause, Cause::Command(end), "{status}");
    }
    let facts = finished(Purpose::Scheduled, InvocationStatus::Cancelled, -1, "");
    let ending = on_finished(&facts);
    assert!(
        matches!(&ending, Ending::Cancelled(failure) if failure.cause == Cause::Command(CommandEnd::Cancelled)),
        "{ending:?}"
    );
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
    fn only_a_valid_report_of_this_command_leads_to_a_commit(
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
            prop_assert!(Duration::seconds(later) <= window);
            prop_assert!(facts.now - report.backup_id.time() <= window);
            prop_assert!(report.backup_id.time() - facts.now <= seconds(budget::MARGIN));
        }
    }
}
