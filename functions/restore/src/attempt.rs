//! What became of one restore command, read from what SSM and the node say of it.

use shared::aws::ssm::{CommandEnd, Invocation, InvocationStatus};
use shared::id::{CommandId, OperationId};
use shared::report::{ExitCode, Report, RestoreReport};
use time::OffsetDateTime;

/// One restore command of an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// The command.
    pub command_id: CommandId,
    /// When it was sent.
    pub requested_at: OffsetDateTime,
    /// How far it came.
    pub progress: Progress,
}

/// How far a command came.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// Not over, and without a sign of life: not delivered, not shown by SSM yet, or being cancelled.
    Unclear,
    /// The agent works on it.
    Executing,
    /// It succeeded, and its report is the one that was asked for.
    Succeeded(RestoreReport),
    /// It ended in any other way.
    Failed(Failure),
}

/// A command that did not make the node ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub cause: Cause,
    /// In words.
    pub message: String,
}

/// The kinds of failure of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The agent ended with this exit code.
    Agent(ExitCode),
    /// It ended in a way of which the agent does not tell.
    Command(CommandEnd),
    /// It ended well, without a report that can be believed.
    Contract,
}

impl Failure {
    /// Tells whether all that failed is that another command was at work on the node.
    pub fn is_busy(&self) -> bool {
        self.cause == Cause::Agent(ExitCode::Busy)
    }
}

/// Judges a command by where it stands as a whole, and by what SSM shows of the step that runs the agent; none
/// where SSM does not show it yet.
pub fn progress(
    whole: &InvocationStatus,
    step: Option<&Invocation>,
    operation: &OperationId,
) -> Progress {
    let progress = step.map_or(Progress::Unclear, |step| of_step(step, operation));
    match progress {
        Progress::Unclear | Progress::Executing => {
            without_the_agent(whole).map_or(progress, Progress::Failed)
        }
        // How SSM names a step that was skipped is not documented: it is no success of the agent.
        Progress::Failed(Failure {
            cause: Cause::Contract,
            ..
        }) if *whole == InvocationStatus::Failed => {
            without_the_agent(whole).map_or(progress, Progress::Failed)
        }
        settled => settled,
    }
}

/// Says why a command is over although its last step, which runs the agent, never ended.
fn without_the_agent(whole: &InvocationStatus) -> Option<Failure> {
    if *whole == InvocationStatus::Failed {
        return Some(Failure {
            cause: Cause::Agent(ExitCode::AgentMismatch),
            message: "the step that fetches the agent failed, so the agent was not run".to_owned(),
        });
    }
    ended_by_ssm(whole)
}

fn ended_by_ssm(status: &InvocationStatus) -> Option<Failure> {
    let end = match status.end() {
        CommandEnd::Failed => return None,
        end => end,
    };
    Some(Failure {
        cause: Cause::Command(end),
        message: format!("SSM ended the command as {status}"),
    })
}

fn of_step(step: &Invocation, operation: &OperationId) -> Progress {
    match &step.status {
        InvocationStatus::InProgress => Progress::Executing,
        InvocationStatus::Success => succeeded(&step.output, operation),
        InvocationStatus::Failed => Progress::Failed(ended_by_itself(step, operation)),
        other => ended_by_ssm(other).map_or(Progress::Unclear, Progress::Failed),
    }
}

/// Judges a command that SSM calls successful: without the report that was asked for, it is not.
fn succeeded(output: &str, operation: &OperationId) -> Progress {
    let problem = match Report::from_output(output) {
        Ok(Report::Restore(report)) if report.operation_id == *operation => {
            return Progress::Succeeded(report);
        }
        Ok(Report::Restore(report)) => {
            let other = report.operation_id;
            format!("the report answers {other}, asked was {operation}")
        }
        Ok(Report::Backup(_)) => "the report is one of a backup".to_owned(),
        Ok(Report::Failure(failure)) => {
            format!("exit status 0, and a report of {}", failure.exit_code)
        }
        Err(error) => error.chain(),
    };
    Progress::Failed(Failure {
        cause: Cause::Contract,
        message: problem,
    })
}

fn ended_by_itself(step: &Invocation, operation: &OperationId) -> Failure {
    if let Ok(Report::Failure(report)) = Report::from_output(&step.output)
        && report.operation_id == *operation
    {
        return Failure {
            cause: Cause::Agent(report.exit_code),
            message: report.message,
        };
    }
    // The document's own script ends without a report where it has no agent to run.
    let cause = match step.exit_code() {
        Some(exit_code) => Cause::Agent(exit_code),
        None => Cause::Command(CommandEnd::Failed),
    };
    let last_words = step.errors.trim().lines().next_back().unwrap_or("");
    Failure {
        cause,
        message: format!(
            "exit status {} without a report of this operation; last words: {last_words:?}",
            step.response_code
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::report::{FailureReport, RestoreOutcome};

    fn operation() -> OperationId {
        "launch-i-0123abcd".parse().unwrap()
    }

    fn restore_report(operation_id: &str) -> RestoreReport {
        RestoreReport {
            operation_id: operation_id.parse().unwrap(),
            outcome: RestoreOutcome::FirstBoot,
            skipped: vec![],
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

    fn judge(status: &str, response_code: i32, output: &str) -> Progress {
        let invocation = Invocation {
            status: status.into(),
            response_code,
            output: output.to_owned(),
            errors: "pg_restore: error\npg_restore: gave up\n".to_owned(),
        };
        let whole = &invocation.status;
        progress(whole, Some(&invocation), &operation())
    }

    fn failure(progress: Progress) -> Failure {
        match progress {
            Progress::Failed(failure) => failure,
            other => panic!("{other:?} is no failure"),
        }
    }

    #[test]
    fn a_success_is_one_with_the_report_that_was_asked_for() {
        let report = restore_report("launch-i-0123abcd");
        let output = Report::Restore(report.clone()).to_line();
        assert_eq!(judge("Success", 0, &output), Progress::Succeeded(report));
    }

    #[test]
    fn a_success_without_a_report_that_can_be_believed_is_a_failure() {
        let other = Report::Restore(restore_report("launch-i-0123abce")).to_line();
        let contradiction = failure_report("launch-i-0123abcd", ExitCode::Restore);
        let cases = [
            ("", "holds no report"),
            ("{\"report\":\"restore\"", "not readable"),
            (&other, "answers launch-i-0123abce"),
            (
                &contradiction,
                "exit status 0, and a report of Restore (exit code 32)",
            ),
        ];
        for (output, expected) in cases {
            let failure = failure(judge("Success", 0, output));
            assert_eq!(failure.cause, Cause::Contract, "{output}");
            assert!(failure.message.contains(expected), "{failure:?}");
        }
    }

    #[test]
    fn a_failure_is_named_after_what_ended_the_command() {
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
    fn a_command_that_is_not_over_is_neither_success_nor_failure() {
        assert_eq!(judge("InProgress", -1, ""), Progress::Executing);
        for status in ["Pending", "Delayed", "Cancelling", "AddedByAwsSince"] {
            assert_eq!(judge(status, -1, ""), Progress::Unclear, "{status}");
        }
        let unseen = progress(&InvocationStatus::Pending, None, &operation());
        assert_eq!(unseen, Progress::Unclear);
    }

    #[test]
    fn a_command_that_ended_before_the_agents_step_is_over() {
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
            let failure = failure(progress(&whole.into(), step.as_ref(), &operation()));
            assert_eq!(failure.cause, expected, "{whole} {shown:?}");
        }
    }

    #[test]
    fn a_report_of_success_counts_however_late_the_command_as_a_whole_is_listed() {
        let report = restore_report("launch-i-0123abcd");
        let step = Invocation {
            status: InvocationStatus::Success,
            response_code: 0,
            output: Report::Restore(report.clone()).to_line(),
            errors: String::new(),
        };
        for whole in ["Pending", "InProgress", "Success"] {
            let progress = progress(&whole.into(), Some(&step), &operation());
            assert_eq!(progress, Progress::Succeeded(report.clone()), "{whole}");
        }
    }

    #[test]
    fn the_message_is_the_agents_own_or_its_last_words() {
        let own = failure_report("launch-i-0123abcd", ExitCode::DiskTooSmall);
        let own = failure(judge("Failed", 35, &own));
        assert_eq!(own.message, "12 GiB needed, 8 GiB free");
        let from_another_time = failure_report("launch-i-0123abce", ExitCode::DiskTooSmall);
        let other = failure(judge("Failed", 32, &from_another_time));
        assert_eq!(other.cause, Cause::Agent(ExitCode::Restore));
        assert!(
            other.message.contains("pg_restore: gave up"),
            "{}",
            other.message
        );
    }
}
