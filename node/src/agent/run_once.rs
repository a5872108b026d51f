//! Runs each operation once. A second delivery of the same command gets the report of the first one.

use shared::operation::Operation;
use shared::report::{FailureReport, Report};

use crate::agent::failure::{Failure, Result};
use crate::agent::lock::{Lock, WaitPolicy};
use crate::agent::state::State;

/// Runs `work` under the node's lock, unless the operation has finished before, and records its report.
///
/// A transient failure is not recorded, so the same operation may run again.
pub(crate) async fn run_once(
    state: &State,
    operation: &Operation,
    policy: WaitPolicy,
    work: impl AsyncFnOnce() -> Result<Report>,
) -> Report {
    let running = async {
        if let Some(report) = state.recorded(operation)? {
            tracing::info!(%operation, "the operation has finished before; repeating its report");
            return Ok(report);
        }
        let _lock = Lock::acquire(state, operation, policy).await?;
        // Another run of the same operation may have finished while this one waited.
        if let Some(report) = state.recorded(operation)? {
            return Ok(report);
        }
        let report = work()
            .await
            .unwrap_or_else(|failure| failed(operation, &failure));
        state.record(&report)?;
        Ok(report)
    };
    running
        .await
        .unwrap_or_else(|failure: Failure| failed(operation, &failure))
}

/// Logs a failure of the operation, and returns its report.
pub(crate) fn failed(operation: &Operation, failure: &Failure) -> Report {
    let message = failure.chain();
    let exit_code = failure.code;
    tracing::error!(%operation, exit_code = %exit_code, remedy = exit_code.remedy(), "{message}");
    Report::Failure(FailureReport {
        operation_id: operation.clone(),
        exit_code,
        message,
    })
}

/// Returns the exit status of the process.
pub(crate) fn exit_status(report: &Report) -> u8 {
    match report {
        Report::Backup(_) | Report::Restore(_) => 0,
        Report::Failure(failure) => failure.exit_code.code(),
    }
}
