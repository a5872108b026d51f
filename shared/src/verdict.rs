//! The verdict on one command on one instance. No other code combines SSM's status with the agent's report.
//!
//! SSM returns when a step ended and its exit code. Only the agent's report proves success, and only if it names the
//! operation of the command: a node may repeat the report of an older operation.

use crate::aws::ssm::{CommandEnd, Invocation, InvocationStatus};
use crate::exit_code::ExitCode;
use crate::kind::Kind;
use crate::operation::Operation;
use crate::report::{BackupReport, Report, RestoreReport};

/// The state of a command on one instance. `R` is the report of a success.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict<R> {
    /// Not finished, and the agent does not visibly run: not delivered, not listed by SSM yet, or being cancelled.
    Pending,
    /// The agent runs it.
    Executing,
    /// It succeeded, with the report of this operation.
    Succeeded(R),
    /// It ended without success.
    Failed(CommandFailure),
}

/// A command that ended without success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandFailure {
    /// The kind of failure.
    pub cause: Cause,
    /// The reason: the agent's own message, or the last line of its standard error.
    pub message: String,
}

/// The kinds of failure of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The agent ended with this exit code.
    Agent(ExitCode),
    /// SSM ended the command, or the agent ended without a report.
    Command(CommandEnd),
    /// SSM reports success, but the output has no valid report of this operation.
    Contract,
}

impl CommandFailure {
    /// Returns whether the command failed only because another command held the node.
    pub fn is_busy(&self) -> bool {
        self.cause == Cause::Agent(ExitCode::Busy)
    }

    /// Returns the kind for the log and the failure metric.
    pub fn kind(&self) -> Kind {
        match self.cause {
            Cause::Agent(exit_code) => Kind::Agent(exit_code),
            Cause::Command(end) => end.kind(),
            Cause::Contract => Kind::Contract,
        }
    }
}

/// Returns the verdict on a backup command on one instance. `command` is the status of the command as a whole, `step`
/// is the step that runs the agent, or `None` if SSM does not list it yet.
pub fn of_backup(
    command: &InvocationStatus,
    step: Option<&Invocation>,
    operation: &Operation,
) -> Verdict<BackupReport> {
    judge(command, step, operation, |report| match report {
        Report::Backup(report) if report.operation_id == *operation => Ok(report),
        Report::Backup(report) => Err(other_operation(&report.operation_id, operation)),
        Report::Restore(_) => Err("the report is a restore's".to_owned()),
        Report::Failure(failure) => Err(contradiction(failure.exit_code)),
    })
}

/// Returns the verdict on a restore command on one instance. `command` is the status of the command as a whole, `step`
/// is the step that runs the agent, or `None` if SSM does not list it yet.
pub fn of_restore(
    command: &InvocationStatus,
    step: Option<&Invocation>,
    operation: &Operation,
) -> Verdict<RestoreReport> {
    judge(command, step, operation, |report| match report {
        Report::Restore(report) if report.operation_id == *operation => Ok(report),
        Report::Restore(report) => Err(other_operation(&report.operation_id, operation)),
        Report::Backup(_) => Err("the report is a backup's".to_owned()),
        Report::Failure(failure) => Err(contradiction(failure.exit_code)),
    })
}

fn other_operation(found: &Operation, expected: &Operation) -> String {
    format!("the report is of the operation {found}, but the command is of {expected}")
}

fn contradiction(exit_code: ExitCode) -> String {
    format!("the exit status is 0, but the report is of the failure {exit_code}")
}

fn judge<R>(
    command: &InvocationStatus,
    step: Option<&Invocation>,
    operation: &Operation,
    accept: impl FnOnce(Report) -> Result<R, String>,
) -> Verdict<R> {
    let verdict = match step {
        None => Verdict::Pending,
        Some(step) => judge_step(step, operation, accept),
    };
    let overruled = match &verdict {
        Verdict::Pending | Verdict::Executing => true,
        // SSM may list a skipped step as a success without output: the agent did not run.
        Verdict::Failed(failure) => {
            failure.cause == Cause::Contract && *command == InvocationStatus::Failed
        }
        Verdict::Succeeded(_) => false,
    };
    match ended_before_the_agent(command) {
        Some(failure) if overruled => Verdict::Failed(failure),
        _ => verdict,
    }
}

/// Returns the failure of a command that ended before its last step, which runs the agent. `None` if the command has
/// not ended.
fn ended_before_the_agent(command: &InvocationStatus) -> Option<CommandFailure> {
    if *command == InvocationStatus::Failed {
        return Some(CommandFailure {
            cause: Cause::Agent(ExitCode::AgentMismatch),
            message: "the step that fetches the agent failed, so the agent did not run".to_owned(),
        });
    }
    ended_by_ssm(command)
}

fn ended_by_ssm(status: &InvocationStatus) -> Option<CommandFailure> {
    let end = match status.end() {
        CommandEnd::Failed => return None,
        end => end,
    };
    Some(CommandFailure {
        cause: Cause::Command(end),
        message: format!(
            "SSM ended the command with the status {status}, without a report of this operation"
        ),
    })
}

fn judge_step<R>(
    step: &Invocation,
    operation: &Operation,
    accept: impl FnOnce(Report) -> Result<R, String>,
) -> Verdict<R> {
    match &step.status {
        InvocationStatus::InProgress => Verdict::Executing,
        InvocationStatus::Success => {
            let report = Report::from_output(&step.output).map_err(|error| error.chain());
            match report.and_then(accept) {
                Ok(report) => Verdict::Succeeded(report),
                Err(message) => Verdict::Failed(CommandFailure {
                    cause: Cause::Contract,
                    message,
                }),
            }
        }
        InvocationStatus::Failed => Verdict::Failed(failed_step(step, operation)),
        other => ended_by_ssm(other).map_or(Verdict::Pending, Verdict::Failed),
    }
}

fn failed_step(step: &Invocation, operation: &Operation) -> CommandFailure {
    if let Ok(Report::Failure(report)) = Report::from_output(&step.output)
        && report.operation_id == *operation
    {
        return CommandFailure {
            cause: Cause::Agent(report.exit_code),
            message: report.message,
        };
    }
    // The document's script ends without a report if the agent is missing.
    let cause = match step.exit_code() {
        Some(exit_code) => Cause::Agent(exit_code),
        None => Cause::Command(CommandEnd::Failed),
    };
    let last_line = step.errors.trim().lines().next_back();
    let last_line = last_line.map_or_else(
        || "no output on standard error".to_owned(),
        |line| format!("last line of standard error: {line}"),
    );
    CommandFailure {
        cause,
        message: format!(
            "exit status {} without a report of this operation; {last_line}",
            step.response_code
        ),
    }
}

#[cfg(test)]
mod tests;
