//! The rules by which the end of a backup command leads to a commit, a retry or a failure.

#[cfg(test)]
mod tests;

use shared::aws::ssm::{CommandEnd, Invocation, InvocationStatus};
use shared::budget::{self, seconds};
use shared::command::{BackupCommand, Purpose};
use shared::exit_code::ExitCode;
use shared::id::BackupId;
use shared::report::BackupReport;
use shared::verdict::{self, Cause, CommandFailure, Verdict};
use time::OffsetDateTime;

/// The facts about a backup command on one instance.
#[derive(Debug, Clone)]
pub struct FinishedFacts {
    /// The command, as SSM recorded it.
    pub command: BackupCommand,
    /// When it was sent.
    pub requested_at: OffsetDateTime,
    /// SSM's status and the agent's output.
    pub invocation: Invocation,
    /// The time of this decision.
    pub now: OffsetDateTime,
}

/// The end of a backup command on one instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// It has not ended.
    StillRunning(InvocationStatus),
    /// The node reports a complete backup: check it, then commit it.
    Commit(BackupReport),
    /// It succeeded too long ago: retention may have deleted its objects, unless it was committed before.
    TooLate(BackupId),
    /// Another Rekindle command held the node. A later backup succeeds.
    Busy,
    /// The node has no data that may be backed up.
    NotRestored(CommandFailure),
    /// Somebody cancelled it.
    Cancelled(CommandFailure),
    /// It failed in another way, or its report is not one of this command.
    Failed(CommandFailure),
}

/// Decides what follows from the end of a backup command.
pub fn on_finished(facts: &FinishedFacts) -> Ending {
    let (invocation, operation) = (&facts.invocation, &facts.command.operation_id);
    match verdict::of_backup(&invocation.status, Some(invocation), operation) {
        Verdict::Pending | Verdict::Executing => Ending::StillRunning(invocation.status.clone()),
        Verdict::Succeeded(report) => on_success(facts, report),
        Verdict::Failed(failure) if failure.is_busy() => Ending::Busy,
        Verdict::Failed(failure) => match failure.cause {
            Cause::Agent(ExitCode::NotRestored) => Ending::NotRestored(failure),
            Cause::Command(CommandEnd::Cancelled) => Ending::Cancelled(failure),
            _ => Ending::Failed(failure),
        },
    }
}

fn on_success(facts: &FinishedFacts, report: BackupReport) -> Ending {
    let (command, backup) = (&facts.command, &report.backup_id);
    // Only the operation of a final backup does not contain the backup's id: if it is sent again with another id, the
    // node repeats its first report.
    if *backup != command.backup_id && command.purpose != Purpose::Final {
        return Ending::Failed(contract(format!(
            "the report is of the backup {backup}, the command asked for {}",
            command.backup_id
        )));
    }
    let window = seconds(budget::COMMIT_WINDOW);
    let age = facts.now - backup.time();
    if facts.now - facts.requested_at > window || age > window {
        return Ending::TooLate(report.backup_id);
    }
    if -age > seconds(budget::MARGIN) {
        return Ending::Failed(contract(format!("the backup {backup} is in the future")));
    }
    Ending::Commit(report)
}

fn contract(message: String) -> CommandFailure {
    CommandFailure {
        cause: Cause::Contract,
        message,
    }
}
