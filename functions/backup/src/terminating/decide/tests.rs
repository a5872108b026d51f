//! Which decision each state of an instance and of its final backup leads to.

use proptest::prelude::*;
use shared::aws::autoscaling::LifecycleResult;
use time::Duration;
use time::macros::datetime;

use super::TerminatingDecision as Decision;
use super::*;
use crate::hook::decide::{FinalBackup, answer};
use crate::testing::any_status;

const NOW: OffsetDateTime = datetime!(2026-11-23 02:20:00 UTC);

fn command_id() -> CommandId {
    "6d2f0f0e-5d0b-4f0a-9b57-0d5b1a3f2c11".parse().unwrap()
}

fn terminating() -> TerminatingFacts {
    TerminatingFacts {
        state: Some(LifecycleState::TerminatingWait),
        ping: Some(Ping::Online),
        command: None,
        now: NOW,
    }
}

fn sent(seconds_ago: i64, status: Option<InvocationStatus>, busy: bool) -> TerminatingFacts {
    let requested_at = NOW - Duration::seconds(seconds_ago);
    let command = FinalCommand {
        command_id: command_id(),
        requested_at,
        status,
        busy,
    };
    TerminatingFacts {
        command: Some(command),
        ..terminating()
    }
}

fn wait(seconds_ago: i64) -> Decision {
    Decision::Wait {
        command_id: command_id(),
        requested_at: NOW - Duration::seconds(seconds_ago),
    }
}

#[test]
fn an_instance_in_its_terminate_hook_gets_one_final_backup_or_none() {
    use InvocationStatus::{Delayed, DeliveryTimedOut, Failed, InProgress, Pending, Success};
    let id = command_id();
    let table = [
        (terminating(), Decision::Send),
        (
            TerminatingFacts {
                ping: None,
                ..terminating()
            },
            Decision::GiveUp("its SSM agent is not registered"),
        ),
        (
            TerminatingFacts {
                ping: Some(Ping::ConnectionLost),
                ..terminating()
            },
            Decision::GiveUp("its SSM agent does not answer"),
        ),
        (sent(1, None, false), wait(1)),
        (sent(1, Some(Pending), false), wait(1)),
        (sent(36, Some(Pending), false), Decision::Cancel(id.clone())),
        (sent(36, Some(Delayed), false), Decision::Cancel(id.clone())),
        (sent(36, None, false), Decision::Cancel(id.clone())),
        (sent(600, Some(InProgress), false), wait(600)),
        (
            sent(600, Some(Success), false),
            Decision::Finish(id.clone()),
        ),
        (sent(600, Some(Failed), false), Decision::Finish(id.clone())),
        (
            sent(40, Some(DeliveryTimedOut), false),
            Decision::Finish(id),
        ),
        (sent(60, Some(Failed), true), Decision::Send),
    ];
    for (facts, decision) in table {
        assert_eq!(on_terminating(&facts), decision, "{facts:?}");
    }
}

#[test]
fn only_an_instance_that_is_leaving_gets_a_final_backup() {
    let leaving = [
        "Terminating",
        "Terminating:Wait",
        "ReplacingRootVolume",
        "ReplacingRootVolume:Wait",
        "Warmed:Terminating",
        "Warmed:Terminating:Wait",
    ];
    let left = [
        "Terminating:Proceed",
        "Terminating:Retained",
        "Terminated",
        "ReplacingRootVolume:Proceed",
        "Warmed:Terminating:Proceed",
        "Warmed:Terminating:Retained",
        "Warmed:Terminated",
    ];
    for state in LifecycleState::ALL {
        let facts = TerminatingFacts {
            state: Some(state.clone()),
            ..terminating()
        };
        let expected = if leaving.contains(&state.as_str()) {
            Decision::Send
        } else if left.contains(&state.as_str()) {
            Decision::NothingWaits
        } else {
            Decision::NotLeaving
        };
        assert_eq!(on_terminating(&facts), expected, "{state}");
    }
    let gone = TerminatingFacts {
        state: None,
        ..terminating()
    };
    assert_eq!(on_terminating(&gone), Decision::NothingWaits);
}

#[test]
fn a_terminate_event_for_a_serving_node_does_nothing() {
    use InvocationStatus::{Failed, InProgress, Pending, Success};
    for status in [
        None,
        Some(Pending),
        Some(InProgress),
        Some(Success),
        Some(Failed),
    ] {
        let facts = TerminatingFacts {
            state: Some(LifecycleState::InService),
            ..sent(600, status, false)
        };
        assert_eq!(on_terminating(&facts), Decision::NotLeaving, "{facts:?}");
    }
}

proptest! {
    #[test]
    fn a_hook_is_never_answered_while_its_final_backup_may_come(
        age in 0i64..10_000,
        status in any_status(),
        busy in any::<bool>(),
        retains in any::<bool>(),
    ) {
        let facts = sent(age, Some(status.clone()), busy);
        let decision = on_terminating(&facts);
        prop_assert!(!matches!(decision, Decision::GiveUp(_) | Decision::NothingWaits));
        if !status.is_finished() && !status.is_undelivered() && !busy {
            prop_assert_eq!(decision, wait(age));
        }
        prop_assert_eq!(answer(FinalBackup::Committed, retains), Some(LifecycleResult::Continue));
        prop_assert_eq!(answer(FinalBackup::Postponed, retains), None);
    }
}
