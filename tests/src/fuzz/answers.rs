//! A node's answers, and the functions' decisions about them: a hostile node may print anything.

use backup::finished::decide::{self, Ending, FinishedFacts};
use shared::aws::ssm::{Invocation, InvocationStatus};
use shared::budget;
use shared::command::{BackupCommand, Purpose};
use shared::layout;
use shared::operation::Operation;
use shared::report::{BackupReport, MOST_REPORT_BYTES, Report};
use shared::verdict::{self, Verdict};
use time::OffsetDateTime;
use time::macros::datetime;

use super::names::{APPLICATION, BACKUP, INSTANCE, assert_harmless, name};

const NOW: OffsetDateTime = datetime!(2026-11-23 02:20:00 UTC);

/// The statuses of a step in SSM, each with its exit code.
const ENDS: [(&str, i32); 6] = [
    ("Success", 0),
    ("Failed", 20),
    ("Failed", 1),
    ("Failed", -1),
    ("TimedOut", 137),
    ("InProgress", -1),
];

/// For any output of a node: a report that is too long is refused, a report that is written is read back unchanged, and
/// only a report that answers the command leads to a commit below the application's own prefix, or to an admission.
pub(super) fn report(input: &[u8]) {
    let output = String::from_utf8_lossy(input);
    if let Ok(report) = Report::from_output(&output) {
        written_and_read_back(&report);
    }
    for (status, response_code) in ENDS {
        let invocation = Invocation {
            status: InvocationStatus::from(status),
            response_code,
            output: output.clone().into_owned(),
            errors: output.clone().into_owned(),
        };
        of_backup(
            &invocation,
            Purpose::Scheduled,
            &Operation::Backup(name(BACKUP)),
        );
        of_backup(
            &invocation,
            Purpose::Final,
            &Operation::FinalBackup(name(INSTANCE)),
        );
        of_restore(&invocation);
    }
}

fn written_and_read_back(report: &Report) {
    let line = report.to_line();
    if line.len() <= MOST_REPORT_BYTES {
        let again = Report::from_output(&line);
        assert!(again.is_ok(), "{line} is not read back: {again:?}");
        assert_eq!(again.map(|again| again.to_line()).ok(), Some(line));
    }
    let (operation, seconds) = match report {
        Report::Backup(report) => (&report.operation_id, vec![report.seconds]),
        Report::Restore(report) => (
            &report.operation_id,
            vec![report.seconds, report.swap_seconds],
        ),
        Report::Failure(report) => (&report.operation_id, Vec::new()),
    };
    assert_harmless(&operation.to_string());
    // CloudWatch rejects larger values, and the whole line of metrics with them.
    for seconds in seconds {
        assert!((0.0..1e18).contains(&seconds), "{seconds} seconds");
    }
}

fn of_backup(invocation: &Invocation, purpose: Purpose, operation: &Operation) {
    let facts = FinishedFacts {
        command: BackupCommand {
            operation_id: operation.clone(),
            backup_id: name(BACKUP),
            purpose,
        },
        requested_at: NOW - time::Duration::minutes(5),
        invocation: invocation.clone(),
        now: NOW,
    };
    match decide::on_finished(&facts) {
        Ending::Commit(report) => may_be_committed(&facts, &report),
        Ending::StillRunning(_) => assert!(!invocation.status.is_finished()),
        _ => {}
    }
}

fn may_be_committed(facts: &FinishedFacts, report: &BackupReport) {
    let command = &facts.command;
    assert_eq!(facts.invocation.status, InvocationStatus::Success);
    assert_eq!(report.operation_id, command.operation_id);
    if command.purpose != Purpose::Final {
        assert_eq!(report.backup_id, command.backup_id);
    }
    let age = facts.now - report.backup_id.time();
    let window = time::Duration::seconds(budget::COMMIT_WINDOW.into());
    assert!((-time::Duration::seconds(budget::MARGIN.into())..=window).contains(&age));
    let (backup, run) = (&report.backup_id, &report.run_id);
    let key = layout::object(&name(APPLICATION), backup, run, layout::INDEX);
    let segments: Vec<&str> = key.split('/').collect();
    assert_eq!(
        (segments.len(), segments[0], segments[1]),
        (6, "backups", APPLICATION)
    );
    segments.into_iter().for_each(assert_harmless);
}

fn of_restore(invocation: &Invocation) {
    let operation = Operation::LaunchRestore(name(INSTANCE));
    for whole in ["InProgress", "Success", "Failed"] {
        let whole = InvocationStatus::from(whole);
        let verdict = verdict::of_restore(&whole, Some(invocation), &operation);
        if let Verdict::Succeeded(report) = verdict {
            assert_eq!(invocation.status, InvocationStatus::Success);
            assert_eq!(report.operation_id, operation);
        }
    }
}
