//! The decision about an in-place restore that an operator requested. It uses only the given facts: no calls, no clock,
//! no log.

use shared::verdict::{Cause, Verdict};

use crate::attempts::RestoreAttempt;

/// The most commands for one restore if the agent ends without a report: the agent continues where it was killed.
const MOST_COMMANDS: usize = 3;

/// The facts about an in-place restore.
#[derive(Debug, Clone, PartialEq)]
pub struct InPlaceFacts {
    /// Whether the instance is its group's only member in service.
    pub serves: bool,
    /// Whether the backup of its current data is in S3 with a manifest.
    pub backed_up: bool,
    /// The restore commands of this operation so far.
    pub attempts: Vec<RestoreAttempt>,
}

/// The decision about an in-place restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InPlaceDecision {
    /// Do nothing yet: its backup is not complete, or a command is running.
    Wait,
    /// Send the restore command.
    Send,
    /// Do nothing any more: its commands have ended, or its node is not in service any more.
    Over,
}

/// Returns the decision about an in-place restore.
pub fn decide(facts: &InPlaceFacts) -> InPlaceDecision {
    let attempts = || facts.attempts.iter().map(|attempt| &attempt.verdict);
    if attempts().any(|verdict| matches!(verdict, Verdict::Succeeded(_))) {
        return InPlaceDecision::Over;
    }
    if attempts().any(|verdict| matches!(verdict, Verdict::Executing | Verdict::Pending)) {
        return InPlaceDecision::Wait;
    }
    // If the agent reports a failure, it has rolled back the restore. The operator decides whether to try again.
    let reported = attempts().any(|verdict| match verdict {
        Verdict::Failed(failure) => !matches!(failure.cause, Cause::Command(_)),
        _ => false,
    });
    if reported || attempts().len() >= MOST_COMMANDS || !facts.serves {
        return InPlaceDecision::Over;
    }
    if facts.backed_up {
        InPlaceDecision::Send
    } else {
        InPlaceDecision::Wait
    }
}

#[cfg(test)]
mod tests {
    use shared::aws::ssm::CommandEnd;
    use shared::exit_code::ExitCode;
    use shared::report::{RestoreOutcome, RestoreReport};
    use shared::verdict::CommandFailure;
    use time::OffsetDateTime;

    use super::*;

    fn failed(cause: Cause) -> Verdict<RestoreReport> {
        Verdict::Failed(CommandFailure {
            cause,
            message: String::new(),
        })
    }

    fn decided(
        backed_up: bool,
        serves: bool,
        attempts: Vec<Verdict<RestoreReport>>,
    ) -> InPlaceDecision {
        let attempts = attempts.into_iter().map(|verdict| RestoreAttempt {
            command_id: "6d2f0f0e-5d0b-4f0a-9b57-0d5b1a3f2c11".parse().unwrap(),
            requested_at: OffsetDateTime::UNIX_EPOCH,
            verdict,
        });
        decide(&InPlaceFacts {
            serves,
            backed_up,
            attempts: attempts.collect(),
        })
    }

    #[test]
    fn the_current_data_are_in_s3_before_the_restore_is_sent() {
        assert_eq!(decided(false, true, vec![]), InPlaceDecision::Wait);
        assert_eq!(decided(true, true, vec![]), InPlaceDecision::Send);
        assert_eq!(decided(true, false, vec![]), InPlaceDecision::Over);
    }

    #[test]
    fn only_a_restore_without_a_report_is_sent_again() {
        let killed = || failed(Cause::Command(CommandEnd::TimedOut));
        let refused = || failed(Cause::Agent(ExitCode::DiskTooSmall));
        let succeeded = Verdict::Succeeded(RestoreReport {
            operation_id: "in-place-20261123T021500.000Z-20261123T023000.000Z"
                .parse()
                .unwrap(),
            outcome: RestoreOutcome::AlreadyRestored { backup_id: None },
            skipped: vec![],
            exceptions: shared::report::exceptions::ReportedExceptions::default(),
            seconds: 1.0,
            swap_seconds: 0.0,
            peak_memory_kib: 1,
        });
        let cases = [
            (vec![killed()], InPlaceDecision::Send),
            (vec![killed(), killed()], InPlaceDecision::Send),
            (vec![killed(), killed(), killed()], InPlaceDecision::Over),
            (vec![refused()], InPlaceDecision::Over),
            (vec![killed(), refused()], InPlaceDecision::Over),
            (vec![killed(), Verdict::Executing], InPlaceDecision::Wait),
            (vec![Verdict::Pending], InPlaceDecision::Wait),
            (vec![killed(), succeeded], InPlaceDecision::Over),
        ];
        for (attempts, expected) in cases {
            assert_eq!(
                decided(true, true, attempts.clone()),
                expected,
                "{attempts:?}"
            );
        }
    }
}
