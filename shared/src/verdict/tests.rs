//! The verdict for every combination of SSM's status and the agent's report.

use super::*;
use crate::report::{FailureReport, RestoreOutcome};

fn operation() -> Operation {
    "launch-i-0123abcd".parse().unwrap()
}

fn restore_report(operation_id: &str) -> RestoreReport {
    RestoreReport {
        operation_id: operation_id.parse().unwrap(),
        outcome: RestoreOutcome::FirstBoot,
        skipped: vec![],
        exceptions: crate::report::exceptions::ReportedExceptions::default(),
        seconds: 1.0,
        swap_seconds: 0.0,
        peak_memory_kib: 1,
    }
}

fn failure_report(operation_id: &str, exit_code: ExitCode) -> String {
    Report::Failure(FailureReport {
        operation_id: operation_id.parse().unwrap(),
        exit_code,
        message: "12 GiB needed, 8 GiB free".to_owned(),
    })
    .to_line()
}

fn judge(status: &str, response_code: i32, output: &str) -> Verdict<RestoreReport> {
    let invocation = Invocation {
        status: status.into(),
        response_code,
        output: output.to_owned(),
        errors: "pg_restore: error\npg_restore: aborted\n".to_owned(),
    };
    let whole = &invocation.status;
    of_restore(whole, Some(&invocation), &operation())
}

fn failure(verdict: Verdict<RestoreReport>) -> CommandFailure {
    match verdict {
        Verdict::Failed(failure) => failure,
        other => panic!("{other:?} is no failure"),
    }
}

#[test]
fn a_success_needs_the_report_of_its_operation() {
    let report = restore_report("launch-i-0123abcd");
    let output = Report::Restore(report.clone()).to_line();
    assert_eq!(judge("Success", 0, &output), Verdict::Succeeded(report));
}

#[test]
fn a_success_without_a_valid_report_is_a_failure() {
    let other = Report::Restore(restore_report("launch-i-0123abce")).to_line();
    let contradiction = failure_report("launch-i-0123abcd", ExitCode::Restore);
    let cases = [
        ("", "holds no report"),
        ("{\"report\":\"restore\"", "not readable"),
        (&other, "of the operation launch-i-0123abce"),
        (
            &contradiction,
            "exit status is 0, but the report is of the failure Restore (exit code 32)",
        ),
    ];
    for (output, expected) in cases {
        let failure = failure(judge("Success", 0, output));
        assert_eq!(failure.cause, Cause::Contract, "{output}");
        assert!(failure.message.contains(expected), "{failure:?}");
    }
}

#[test]
fn the_cause_of_a_failure_is_the_report_or_ssms_status() {
    let report = failure_report("launch-i-0123abcd", ExitCode::DiskTooSmall);
    let cases = [
        ("Failed", 35, &*report, Cause::Agent(ExitCode::DiskTooSmall)),
        ("Failed", 12, "", Cause::Agent(ExitCode::AgentMismatch)),
        ("Failed", 1, "", Cause::Command(CommandEnd::Failed)),
        ("Failed", -1, "", Cause::Agent(ExitCode::AgentMismatch)),
        (
            "ExecutionTimedOut",
            -1,
            "",
            Cause::Command(CommandEnd::TimedOut),
        ),
        (
            "TimedOut",
            137,
            &*report,
            Cause::Command(CommandEnd::TimedOut),
        ),
        (
            "DeliveryTimedOut",
            -1,
            "",
            Cause::Command(CommandEnd::TimedOut),
        ),
        ("Cancelled", -1, "", Cause::Command(CommandEnd::Cancelled)),
        (
            "Undeliverable",
            -1,
            "",
            Cause::Command(CommandEnd::Undeliverable),
        ),
        (
            "AccessDenied",
            -1,
            "",
            Cause::Command(CommandEnd::Undeliverable),
        ),
    ];
    for (status, response_code, output, expected) in cases {
        let failure = failure(judge(status, response_code, output));
        assert_eq!(failure.cause, expected, "{status} {response_code}");
    }
}

#[test]
fn an_unfinished_command_is_pending_or_executing() {
    assert_eq!(judge("InProgress", -1, ""), Verdict::Executing);
    for status in ["Pending", "Delayed", "Cancelling", "AddedByAwsSince"] {
        assert_eq!(judge(status, -1, ""), Verdict::Pending, "{status}");
    }
    let unlisted = of_restore(&InvocationStatus::Pending, None, &operation());
    assert_eq!(unlisted, Verdict::Pending);
}

#[test]
fn a_command_may_fail_before_the_agents_step() {
    let step = |status: &str| Invocation {
        status: status.into(),
        response_code: -1,
        output: String::new(),
        errors: String::new(),
    };
    let fetch = Cause::Agent(ExitCode::AgentMismatch);
    let cases = [
        ("Failed", Some("Pending"), fetch),
        ("Failed", Some("Success"), fetch),
        ("Failed", None, fetch),
        (
            "DeliveryTimedOut",
            Some("InProgress"),
            Cause::Command(CommandEnd::TimedOut),
        ),
        (
            "Cancelled",
            Some("Pending"),
            Cause::Command(CommandEnd::Cancelled),
        ),
        (
            "Undeliverable",
            None,
            Cause::Command(CommandEnd::Undeliverable),
        ),
    ];
    for (whole, shown, expected) in cases {
        let step = shown.map(step);
        let failure = failure(of_restore(&whole.into(), step.as_ref(), &operation()));
        assert_eq!(failure.cause, expected, "{whole} {shown:?}");
    }
}

#[test]
fn a_step_that_succeeded_counts_before_ssm_lists_the_command_as_finished() {
    let report = restore_report("launch-i-0123abcd");
    let step = Invocation {
        status: InvocationStatus::Success,
        response_code: 0,
        output: Report::Restore(report.clone()).to_line(),
        errors: String::new(),
    };
    for whole in ["Pending", "InProgress", "Success"] {
        let verdict = of_restore(&whole.into(), Some(&step), &operation());
        assert_eq!(verdict, Verdict::Succeeded(report.clone()), "{whole}");
    }
}

#[test]
fn the_message_is_the_agents_own_or_its_last_line_of_standard_error() {
    let own = failure_report("launch-i-0123abcd", ExitCode::DiskTooSmall);
    let own = failure(judge("Failed", 35, &own));
    assert_eq!(own.message, "12 GiB needed, 8 GiB free");
    let from_another_time = failure_report("launch-i-0123abce", ExitCode::DiskTooSmall);
    let other = failure(judge("Failed", 32, &from_another_time));
    assert_eq!(other.cause, Cause::Agent(ExitCode::Restore));
    assert!(
        other.message.contains("pg_restore: aborted"),
        "{}",
        other.message
    );
}

#[test]
fn a_backup_needs_the_report_of_its_operation_as_a_restore_does() {
    let operation: Operation = "20261123T021500.000Z".parse().unwrap();
    let step = |status: InvocationStatus, code: i32, output: String| Invocation {
        status,
        response_code: code,
        output,
        errors: "pg_dump: error: aborted\n".to_owned(),
    };
    let judge = |step: &Invocation| of_backup(&step.status, Some(step), &operation);
    let restore = Report::Restore(restore_report("launch-i-0123abcd")).to_line();
    let foreign = judge(&step(InvocationStatus::Success, 0, restore));
    assert!(
        matches!(&foreign, Verdict::Failed(failure) if failure.cause == Cause::Contract),
        "{foreign:?}"
    );
    // A failure report of another operation gives neither its exit code nor its message.
    let other = failure_report("20261123T020000.000Z", ExitCode::DiskTooSmall);
    let other = judge(&step(InvocationStatus::Failed, 21, other));
    let expected = CommandFailure {
        cause: Cause::Agent(ExitCode::Dump),
        message: "exit status 21 without a report of this operation; last line of standard error: \
                  pg_dump: error: aborted"
            .to_owned(),
    };
    assert_eq!(other, Verdict::Failed(expected));
}
