//! What is done about an instance in its terminate hook.

use shared::aws::autoscaling::{LifecycleResult, LifecycleState};

use super::*;

#[test]
fn a_hook_is_answered_with_what_keeps_the_data() {
    use LifecycleResult::{Abandon, Continue};
    let table = [
        (FinalBackup::Committed, Some(Continue), Some(Continue)),
        (FinalBackup::NothingToSave, Some(Continue), Some(Continue)),
        (FinalBackup::Postponed, None, None),
        (FinalBackup::Failed, Some(Abandon), Some(Continue)),
    ];
    for (backup, retaining, plain) in table {
        assert_eq!(
            (answer(backup, true), answer(backup, false)),
            (retaining, plain),
            "{backup:?}"
        );
    }
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

fn wait(seconds_ago: i64) -> Terminating {
    Terminating::Wait {
        command_id: command_id(),
        requested_at: NOW - Duration::seconds(seconds_ago),
    }
}

#[test]
fn an_instance_in_its_terminate_hook_gets_one_final_backup_or_none() {
    use InvocationStatus::{Delayed, DeliveryTimedOut, Failed, InProgress, Pending, Success};
    let id = command_id();
    let table = [
        (terminating(), Terminating::Send),
        (
            TerminatingFacts {
                ping: None,
                ..terminating()
            },
            Terminating::GiveUp("its SSM agent is not registered"),
        ),
        (
            TerminatingFacts {
                ping: Some(Ping::ConnectionLost),
                ..terminating()
            },
            Terminating::GiveUp("its SSM agent does not answer"),
        ),
        (sent(1, None, false), wait(1)),
        (sent(1, Some(Pending), false), wait(1)),
        (
            sent(36, Some(Pending), false),
            Terminating::Cancel(id.clone()),
        ),
        (
            sent(36, Some(Delayed), false),
            Terminating::Cancel(id.clone()),
        ),
        (sent(36, None, false), Terminating::Cancel(id.clone())),
        (sent(600, Some(InProgress), false), wait(600)),
        (
            sent(600, Some(Success), false),
            Terminating::Settle(id.clone()),
        ),
        (
            sent(600, Some(Failed), false),
            Terminating::Settle(id.clone()),
        ),
        (
            sent(40, Some(DeliveryTimedOut), false),
            Terminating::Settle(id),
        ),
        (sent(60, Some(Failed), true), Terminating::Send),
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
            Terminating::Send
        } else if left.contains(&state.as_str()) {
            Terminating::NothingWaits
        } else {
            Terminating::NotLeaving
        };
        assert_eq!(on_terminating(&facts), expected, "{state}");
    }
    let gone = TerminatingFacts {
        state: None,
        ..terminating()
    };
    assert_eq!(on_terminating(&gone), Terminating::NothingWaits);
}

#[test]
fn a_terminate_event_for_a_node_that_serves_does_nothing_whatever_was_sent_to_it() {
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
        assert_eq!(on_terminating(&facts), Terminating::NotLeaving, "{facts:?}");
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
        prop_assert!(!matches!(decision, Terminating::GiveUp(_) | Terminating::NothingWaits));
        if !status.is_finished() && !status.is_undelivered() && !busy {
            prop_assert_eq!(decision, wait(age));
        }
        prop_assert_eq!(answer(FinalBackup::Committed, retains), Some(LifecycleResult::Continue));
        prop_assert_eq!(answer(FinalBackup::Postponed, retains), None);
    }
}
