//! Exactly once: an operation that is settled is answered again, never run again.

use std::time::Duration;

use shared::budget;
use shared::id::OperationId;
use shared::report::{FailureReport, Report};

use crate::agent::failure::{Failure, Result};
use crate::agent::state::{State, Waiting};

/// How patient an operation is with others that hold the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// The next one will do: a scheduled backup.
    None,
    /// There is no next one: a restore. A backup in its way is over before long.
    UntilFree,
    /// A final backup has newer rows than any other, and the terminate hook has no time to wait for one.
    AskForWay,
}

impl Patience {
    fn limit(self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::UntilFree | Self::AskForWay => budget::seconds(budget::BACKUP_EXECUTION),
        }
    }
}

/// Runs `work` under the lock of the host, unless the operation is settled already, and keeps what it came to.
pub(crate) async fn settle(
    state: &State,
    operation: &OperationId,
    patience: Patience,
    work: impl AsyncFnOnce() -> Result<Report>,
) -> Report {
    let settled = async {
        if let Some(report) = state.recall(operation)? {
            tracing::info!(%operation, "settled before; answering the same");
            return Ok(report);
        }
        let waiting = Waiting {
            others: patience.limit(),
            own: budget::seconds(budget::RESTORE_EXECUTION),
            asks_for_way: patience == Patience::AskForWay,
        };
        let _lock = state.lock(operation, waiting).await?;
        // Its other run may have settled it while this one waited.
        if let Some(report) = state.recall(operation)? {
            return Ok(report);
        }
        let report = work()
            .await
            .unwrap_or_else(|failure| failed(operation, &failure));
        state.remember(&report)?;
        Ok(report)
    };
    settled
        .await
        .unwrap_or_else(|failure: Failure| failed(operation, &failure))
}

/// Reports a failure of the operation.
pub(crate) fn failed(operation: &OperationId, failure: &Failure) -> Report {
    let message = failure.chain();
    let exit_code = failure.code;
    tracing::error!(%operation, exit_code = %exit_code, remedy = exit_code.remedy(), "{message}");
    Report::Failure(FailureReport {
        operation_id: operation.clone(),
        exit_code,
        message,
    })
}

/// Returns what the process exits with.
pub(crate) fn exit_status(report: &Report) -> u8 {
    match report {
        Report::Backup(_) | Report::Restore(_) => 0,
        Report::Failure(failure) => failure.exit_code.code(),
    }
}
