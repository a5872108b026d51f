//! Rules that hold for every decision, with random facts.

use proptest::prelude::*;

use super::*;

fn any_verdict() -> impl Strategy<Value = Verdict<RestoreReport>> {
    prop_oneof![
        Just(Verdict::Pending),
        Just(Verdict::Executing),
        Just(Verdict::Succeeded(report())),
        Just(failed(Cause::Agent(ExitCode::Busy))),
        Just(failed(Cause::Agent(ExitCode::Restore))),
        Just(failed(Cause::Contract)),
        Just(failed(Cause::Command(CommandEnd::TimedOut))),
    ]
}

prop_compose! {
    fn any_facts()(
        waited in 0_u32..10_000,
        state in prop_oneof![
            4 => Just(Some(LifecycleState::PendingWait)),
            1 => Just(Some(LifecycleState::WarmedPendingWait)),
            1 => Just(Some(LifecycleState::InService)),
        ],
        protected in prop::bool::weighted(0.9),
        root_volume_replaced in prop::bool::weighted(0.1),
        predecessor in prop_oneof![
            Just(None),
            Just(Some(Predecessor::Terminating(other()))),
            Just(Some(Predecessor::Active(other()))),
        ],
        ping in prop_oneof![Just(None), Just(Some(Ping::ConnectionLost)), Just(Some(Ping::Online))],
        verdict in prop::collection::vec(any_verdict(), 0..4),
    ) -> LaunchFacts {
        LaunchFacts {
            state,
            application: if protected { ready(0).application } else { Err("tag it".to_owned()) },
            root_volume_replaced,
            predecessor,
            ping,
            attempts: attempts(verdict),
            ..ready(waited)
        }
    }
}

proptest! {
    #[test]
    fn an_instance_enters_service_only_with_a_report_of_success(facts in any_facts()) {
        let reported = |attempt: &RestoreAttempt| matches!(attempt.verdict, Verdict::Succeeded(_));
        match decide(&facts) {
            LaunchDecision::Admit { .. } => {
                prop_assert!(facts.attempts.iter().any(reported));
                prop_assert_eq!(facts.state, Some(LifecycleState::PendingWait));
            }
            LaunchDecision::PassIntoWarmPool => {
                prop_assert_eq!(facts.state, Some(LifecycleState::WarmedPendingWait));
            }
            _ => {}
        }
    }

    #[test]
    fn no_restore_is_sent_after_another_one(facts in any_facts()) {
        if let LaunchDecision::ChooseBackup { .. } = decide(&facts) {
            prop_assert!(facts.attempts.is_empty());
            prop_assert_ne!(facts.predecessor, Some(Predecessor::Active(other())));
            prop_assert_eq!(facts.ping, Some(Ping::Online));
            prop_assert_eq!(facts.state, Some(LifecycleState::PendingWait));
        }
    }

    #[test]
    fn a_heartbeat_needs_an_executing_restore_below_the_hard_cap(facts in any_facts()) {
        if let LaunchDecision::AlreadyRunning { heartbeat: true, .. } = decide(&facts) {
            prop_assert!(facts.attempts.iter().any(|attempt| attempt.verdict == Verdict::Executing));
            prop_assert_eq!(facts.ping, Some(Ping::Online));
            prop_assert!(facts.waited_seconds() <= i64::from(budget::HARD_CAP));
        }
    }

    #[test]
    fn the_order_of_the_commands_does_not_matter(facts in any_facts()) {
        let mut reversed = facts.clone();
        reversed.attempts.reverse();
        prop_assert_eq!(decide(&facts).name(), decide(&reversed).name());
    }
}
