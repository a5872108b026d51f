//! A command as SSM returns it: its status, and the report that the agent printed.

use shared::aws::ssm::{Invocation, InvocationStatus};
use shared::exit_code::ExitCode;
use shared::operation::Operation;
use shared::report::{
    BackupReport, FailureReport, Report, RestoreOutcome, RestoreReport, SkippedBackup,
};

use crate::model::world::names;
use crate::model::world::{AgentOutcome, BackupNumber, Status};

/// The response code of a step that has not ended.
const NO_RESPONSE: i32 = -1;

/// Returns a command's invocation. `backup_of` is the backup that a reported run belongs to.
pub(super) fn invocation(
    status: Status,
    operation: &Operation,
    backup_of: BackupNumber,
) -> Invocation {
    let ended = |status, response_code, output| Invocation {
        status,
        response_code,
        output,
        errors: String::new(),
    };
    let silent = |status| ended(status, NO_RESPONSE, String::new());
    match status {
        Status::Pending => silent(InvocationStatus::Pending),
        Status::Running => silent(InvocationStatus::InProgress),
        Status::TimedOut => silent(InvocationStatus::ExecutionTimedOut),
        Status::Undelivered => silent(InvocationStatus::DeliveryTimedOut),
        Status::Cancelled => silent(InvocationStatus::Cancelled),
        Status::Ended(outcome) => {
            let line = report(outcome, operation, backup_of).to_line();
            match outcome {
                AgentOutcome::Failed(code) => {
                    ended(InvocationStatus::Failed, code.code().into(), line)
                }
                _ => ended(InvocationStatus::Success, 0, line),
            }
        }
    }
}

fn report(outcome: AgentOutcome, operation: &Operation, backup_of: BackupNumber) -> Report {
    let operation_id = operation.clone();
    let restored = |outcome, skipped: u8| {
        let skipped = (1..=skipped).map(|newer| backup_of.saturating_add(newer));
        Report::Restore(restore_report(operation.clone(), outcome, skipped))
    };
    match outcome {
        AgentOutcome::BackedUp(run) => Report::Backup(BackupReport {
            operation_id,
            backup_id: names::backup_id(backup_of),
            run_id: names::run_id(run),
            index_sha256: sha256(),
            index_size: 1,
            databases: 1,
            tables: 1,
            rows: 1,
            bytes: 1,
            seconds: 1.0,
            peak_memory_kib: 1,
        }),
        AgentOutcome::Restored { backup, skipped } => restored(
            RestoreOutcome::Restored {
                backup_id: names::backup_id(backup),
                age_seconds: 1,
                rows: 1,
                bytes: 1,
            },
            skipped,
        ),
        AgentOutcome::FirstBoot => restored(RestoreOutcome::FirstBoot, 0),
        AgentOutcome::AlreadyRestored { backup, skipped } => {
            let backup_id = backup.map(names::backup_id);
            restored(RestoreOutcome::AlreadyRestored { backup_id }, skipped)
        }
        AgentOutcome::Failed(exit_code) => Report::Failure(FailureReport {
            operation_id,
            exit_code,
            message: "it failed".to_owned(),
        }),
    }
}

/// Returns the report of a restore that skipped these backups.
pub(super) fn restore_report(
    operation_id: Operation,
    outcome: RestoreOutcome,
    skipped: impl Iterator<Item = BackupNumber>,
) -> RestoreReport {
    let skipped = skipped.map(|backup| SkippedBackup {
        backup_id: names::backup_id(backup),
        exit_code: ExitCode::Verification,
        reason: "an object is damaged".to_owned(),
    });
    RestoreReport {
        operation_id,
        outcome,
        skipped: skipped.collect(),
        exceptions: shared::report::exceptions::ReportedExceptions::default(),
        seconds: 1.0,
        swap_seconds: 0.1,
        peak_memory_kib: 1,
    }
}

/// Returns the only hash of the model. The tests of the functions and of the agent cover its comparison.
pub(super) fn sha256() -> shared::id::Sha256 {
    shared::id::Sha256::of(&[0; 32])
}
