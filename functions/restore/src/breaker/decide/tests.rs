//! The rules of the circuit breaker, one by one.

mod life;

use shared::aws::ssm::CommandEnd;
use shared::exit_code::ExitCode;
use time::macros::datetime;

use super::*;
use shared::verdict::{Cause, CommandFailure};

use crate::launch::reason::Reason;

const NOW: OffsetDateTime = datetime!(2026-11-23 02:15:00 UTC);
const MINUTE: Duration = Duration::from_mins(1);

fn instance(number: u32) -> InstanceId {
    format!("i-{number:08x}").parse().unwrap()
}

fn launch(number: u32, end: LaunchEnd) -> Launch {
    Launch {
        instance_id: Some(instance(number)),
        started_at: NOW - MINUTE * (100 - number),
        end,
    }
}

/// A failed launch of the instance 50, without an earlier failure.
fn failed() -> FailedLaunch {
    FailedLaunch {
        now: NOW,
        instance_id: instance(50),
        permanent: false,
        launches: vec![launch(50, LaunchEnd::NotYet)],
        suspended: false,
        breaker: None,
    }
}

fn open(trips: u32, tripped_at: OffsetDateTime, by: u32) -> Breaker {
    Breaker::Open {
        trips,
        tripped_at,
        instance_id: instance(by),
    }
}

fn half_open(trips: u32, tripped_at: OffsetDateTime) -> Breaker {
    Breaker::HalfOpen { trips, tripped_at }
}

fn tripped(trips: u32, failures: u32) -> OnFailure {
    OnFailure::Trip {
        failures,
        breaker: open(trips, NOW, 50),
    }
}

#[test]
fn a_permanent_failure_trips_at_once_and_a_transient_one_at_the_third_in_a_row() {
    use LaunchEnd::{Failed, NotYet, Successful};
    assert_eq!(on_failure(&failed()), OnFailure::Relaunch { failures: 1 });
    let permanent = FailedLaunch {
        permanent: true,
        ..failed()
    };
    assert_eq!(on_failure(&permanent), tripped(1, 1));
    let after = |ends: &[LaunchEnd]| {
        let ends = (1..).zip(ends);
        let earlier = ends.map(|(back, end)| launch(50 - back, *end));
        let mut launches = failed().launches;
        launches.extend(earlier);
        let facts = FailedLaunch {
            launches,
            ..failed()
        };
        on_failure(&facts)
    };
    assert_eq!(after(&[Failed]), OnFailure::Relaunch { failures: 2 });
    assert_eq!(after(&[Failed, Failed]), tripped(1, 3));
    assert_eq!(
        after(&[Failed, Successful, Failed]),
        OnFailure::Relaunch { failures: 2 }
    );
    assert_eq!(
        after(&[NotYet, Failed, NotYet, Failed, Failed]),
        tripped(1, 4)
    );
}

#[test]
fn a_failure_is_permanent_if_a_new_instance_would_fail_for_the_same_reason() {
    let failed = |cause| Reason::RestoreFailed {
        command_id: "00000000-0000-4000-8000-000000000001".parse().unwrap(),
        failure: CommandFailure {
            cause,
            message: String::new(),
        },
    };
    for code in ExitCode::ALL {
        assert_eq!(failed(Cause::Agent(*code)).permanent(), code.permanent());
    }
    let problem = String::new();
    let permanent = [
        Reason::BackupsGone,
        Reason::BackupsUnknown {
            problem: problem.clone(),
        },
        Reason::NoReadableManifest {
            looked_at: 1,
            problem,
        },
        Reason::ApplicationShared {
            with: "dtr-copy".to_owned(),
        },
    ];
    assert!(permanent.iter().all(Reason::permanent));
    let transient = [
        Reason::RootVolumeReplaced,
        Reason::AgentNeverCame,
        Reason::AgentLost,
        Reason::PredecessorActive {
            instance_id: instance(1),
        },
        Reason::HardCap,
        failed(Cause::Command(CommandEnd::TimedOut)),
        failed(Cause::Contract),
    ];
    assert!(!transient.iter().any(Reason::permanent));
}

#[test]
fn this_launch_counts_once_and_a_launch_without_an_instance_does_not_count() {
    let mut launches = vec![launch(50, LaunchEnd::Failed), launch(49, LaunchEnd::Failed)];
    launches.extend([48, 47].map(|number| Launch {
        instance_id: None,
        ..launch(number, LaunchEnd::Failed)
    }));
    let counted = |launches| {
        let failed = FailedLaunch {
            launches,
            ..failed()
        };
        failed.failures_since(None)
    };
    assert_eq!(counted(launches), 2);
    assert_eq!(counted(vec![]), 1);
}

#[test]
fn failures_before_the_breaker_was_closed_do_not_count() {
    let launches = [50, 49, 48, 47].map(|number| launch(number, LaunchEnd::Failed));
    let closed_at = |closed_at| FailedLaunch {
        launches: launches.to_vec(),
        breaker: Some(Breaker::Closed { closed_at }),
        ..failed()
    };
    let between = launches[1].started_at - MINUTE / 2;
    assert_eq!(
        on_failure(&closed_at(between)),
        OnFailure::Relaunch { failures: 2 }
    );
    let earlier = between - 2 * MINUTE;
    assert_eq!(on_failure(&closed_at(earlier)), tripped(1, 4));
}

#[test]
fn any_failure_on_trial_trips_unless_a_launch_has_succeeded_meanwhile() {
    let tripped_at = NOW - 20 * MINUTE;
    let on_trial = |breaker, launches| FailedLaunch {
        breaker: Some(breaker),
        launches,
        ..failed()
    };
    for breaker in [half_open(1, tripped_at), open(1, tripped_at, 49)] {
        assert_eq!(
            on_failure(&on_trial(breaker.clone(), vec![])),
            tripped(2, 1)
        );
        // An operator put an instance into service, and it failed later.
        let successful = Launch {
            started_at: tripped_at + MINUTE,
            ..launch(49, LaunchEnd::Successful)
        };
        assert_eq!(
            on_failure(&on_trial(breaker, vec![successful])),
            OnFailure::Relaunch { failures: 1 }
        );
    }
}

#[test]
fn a_pass_that_was_cut_off_is_continued_and_a_repetition_changes_nothing() {
    let again = |suspended| FailedLaunch {
        permanent: true,
        suspended,
        breaker: Some(open(3, NOW - MINUTE, 50)),
        ..failed()
    };
    assert_eq!(on_failure(&again(false)), tripped(3, 1));
    assert_eq!(on_failure(&again(true)), OnFailure::AlreadyTripped);
}

#[test]
fn a_suspension_without_an_open_record_is_somebody_elses() {
    let closed = Breaker::Closed { closed_at: NOW };
    for breaker in [None, Some(closed), Some(half_open(1, NOW))] {
        let facts = FailedLaunch {
            permanent: true,
            suspended: true,
            breaker: breaker.clone(),
            ..failed()
        };
        assert_eq!(on_failure(&facts), OnFailure::SuspendedBySomebodyElse);
        let watched = WatchedGroup {
            now: NOW + 10_000 * MINUTE,
            waiting: vec![],
            suspended: true,
            breaker: breaker.clone(),
        };
        assert_eq!(on_sweep(&watched), OnSweep::Nothing);
        let resumed = on_resume(breaker.as_ref(), true, NOW);
        assert!(
            matches!(resumed, OnResume::SuspendedBySomebodyElse(_)),
            "{resumed:?}"
        );
    }
}

#[test]
fn the_wait_doubles_up_to_the_longest_one() {
    let minutes = [0, 1, 2, 3, 4, 5, 6, 7, u32::MAX].map(|trips| wait(trips).as_secs() / 60);
    assert_eq!(minutes, [15, 15, 30, 60, 120, 240, 240, 240, 240]);
}

#[test]
fn a_sweep_half_opens_the_breaker_after_the_wait_and_not_before() {
    let after = |trips, minutes| WatchedGroup {
        now: NOW + MINUTE * minutes,
        waiting: vec![],
        suspended: true,
        breaker: Some(open(trips, NOW, 50)),
    };
    for (trips, minutes) in [(1, 15), (2, 30), (3, 60)] {
        assert_eq!(on_sweep(&after(trips, minutes - 1)), OnSweep::Nothing);
        let due = after(trips, minutes);
        assert_eq!(on_sweep(&due), OnSweep::HalfOpen(half_open(trips, NOW)));
        // The failed instance is still in its hook. A launch is tried after it has left.
        let waiting = WatchedGroup {
            waiting: vec![instance(50)],
            ..due
        };
        assert_eq!(on_sweep(&waiting), OnSweep::Nothing);
    }
}

#[test]
fn launches_that_somebody_else_resumed_are_on_trial() {
    let resumed = |seconds, waiting: &[u32]| WatchedGroup {
        now: NOW + Duration::from_secs(seconds),
        waiting: waiting.iter().copied().map(instance).collect(),
        suspended: false,
        breaker: Some(open(2, NOW, 50)),
    };
    // The suspension may still take effect.
    assert_eq!(on_sweep(&resumed(119, &[])), OnSweep::Nothing);
    assert_eq!(on_sweep(&resumed(10_000, &[50])), OnSweep::Nothing);
    let recorded = OnSweep::RecordResumed(half_open(2, NOW));
    assert_eq!(on_sweep(&resumed(120, &[])), recorded);
    // The launch on trial writes its own record.
    assert_eq!(on_sweep(&resumed(120, &[51])), OnSweep::Nothing);
}

#[test]
fn a_success_closes_a_tripped_breaker_and_does_nothing_otherwise() {
    let closed = Breaker::Closed { closed_at: NOW };
    assert_eq!(on_success(None, NOW), OnSuccess::Nothing);
    assert_eq!(on_success(Some(&closed), NOW), OnSuccess::Nothing);
    for (breaker, resume) in [(half_open(1, NOW), false), (open(1, NOW, 50), true)] {
        let close = OnSuccess::Close {
            resume,
            breaker: closed.clone(),
        };
        assert_eq!(on_success(Some(&breaker), NOW), close);
    }
}

#[test]
fn a_request_resumes_only_launches_that_rekindle_suspended() {
    let closed = Breaker::Closed { closed_at: NOW };
    let (open, half_open) = (open(1, NOW, 50), half_open(1, NOW));
    let close = |resume| OnResume::Close {
        resume,
        breaker: closed.clone(),
    };
    let cases = [
        (None, false, OnResume::NothingToDo),
        (Some(&closed), false, OnResume::NothingToDo),
        (Some(&open), true, OnResume::Resume(closed.clone())),
        (Some(&open), false, close(true)),
        (Some(&half_open), false, close(false)),
        (
            Some(&half_open),
            true,
            OnResume::SuspendedBySomebodyElse(Some(closed.clone())),
        ),
        (None, true, OnResume::SuspendedBySomebodyElse(None)),
    ];
    for (breaker, suspended, expected) in cases {
        assert_eq!(on_resume(breaker, suspended, NOW), expected);
    }
}
