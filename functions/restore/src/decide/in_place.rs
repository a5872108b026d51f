//! What to do about a restore in place that an operator asked for: decided from facts, as in all of `decide`.

use shared::id::InstanceId;

use crate::attempt::{Attempt, Cause, Progress};

/// How often a restore is sent whose end nobody can tell: the agent that is asked again takes up where it was killed.
const MOST_COMMANDS: usize = 3;

/// What is known of a restore in place.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The instance whose data are to be replaced.
    pub instance_id: InstanceId,
    /// Whether it is its group's only member in service.
    pub serves: bool,
    /// Whether the backup of what it has is in S3, with a manifest.
    pub backed_up: bool,
    /// The restore commands of this operation so far.
    pub attempts: Vec<Attempt>,
}

/// What to do about a restore in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Its backup is not complete, or a command is under way.
    Wait,
    /// Send it.
    Send,
    /// It has had its commands, or its node serves no more.
    Over,
}

/// Decides about a restore in place.
pub fn decide(facts: &Facts) -> Decision {
    let attempts = || facts.attempts.iter().map(|attempt| &attempt.progress);
    if attempts().any(|progress| matches!(progress, Progress::Succeeded(_))) {
        return Decision::Over;
    }
    if attempts().any(|progress| matches!(progress, Progress::Executing | Progress::Unclear)) {
        return Decision::Wait;
    }
    // What the agent itself reports was taken back by it: whether to try again is for the operator to say.
    let reported = attempts().any(|progress| match progress {
        Progress::Failed(failure) => !matches!(failure.cause, Cause::Command(_)),
        _ => false,
    });
    if reported || attempts().len() >= MOST_COMMANDS || !facts.serves {
        return Decision::Over;
    }
    if facts.backed_up {
        Decision::Send
    } else {
        Decision::Wait
    }
}

#[cfg(test)]
mod tests {
    use shared::aws::ssm::CommandEnd;
    use shared::report::{ExitCode, RestoreOutcome, RestoreReport};
    use time::OffsetDateTime;

    use super::*;
    use crate::attempt::Failure;

    fn failed(cause: Cause) -> Progress {
        Progress::Failed(Failure {
            cause,
            message: String::new(),
        })
    }

    fn decided(backed_up: bool, serves: bool, attempts: Vec<Progress>) -> Decision {
        let attempts = attempts.into_iter().map(|progress| Attempt {
            command_id: "6d2f0f0e-5d0b-4f0a-9b57-0d5b1a3f2c11".parse().unwrap(),
            requested_at: OffsetDateTime::UNIX_EPOCH,
            progress,
        });
        decide(&Facts {
            instance_id: "i-0123abcd".parse().unwrap(),
            serves,
            backed_up,
            attempts: attempts.collect(),
        })
    }

    #[test]
    fn nothing_is_restored_in_place_before_what_is_there_is_in_s3() {
        assert_eq!(decided(false, true, vec![]), Decision::Wait);
        assert_eq!(decided(true, true, vec![]), Decision::Send);
        assert_eq!(decided(true, false, vec![]), Decision::Over);
    }

    #[test]
    fn only_a_restore_whose_end_nobody_can_tell_is_sent_again() {
        let killed = || failed(Cause::Command(CommandEnd::TimedOut));
        let refused = || failed(Cause::Agent(ExitCode::DiskTooSmall));
        let succeeded = Progress::Succeeded(RestoreReport {
            operation_id: "in-place-x".parse().unwrap(),
            outcome: RestoreOutcome::AlreadyRestored { backup_id: None },
            skipped: vec![],
            seconds: 1.0,
            swap_seconds: 0.0,
            peak_memory_kib: 1,
        });
        let cases = [
            (vec![killed()], Decision::Send),
            (vec![killed(), killed()], Decision::Send),
            (vec![killed(), killed(), killed()], Decision::Over),
            (vec![refused()], Decision::Over),
            (vec![killed(), refused()], Decision::Over),
            (vec![killed(), Progress::Executing], Decision::Wait),
            (vec![Progress::Unclear], Decision::Wait),
            (vec![killed(), succeeded], Decision::Over),
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
