//! The order of the breaker's steps, the handling of a failed step, and the answers to `resume`.

use std::time::Duration;

use shared::kind::Kind;
use time::OffsetDateTime;

use super::given::OLD_INSTANCE;
use super::*;

fn minutes_ago(minutes: u64) -> String {
    use time::format_description::well_known::Rfc3339;
    let then = OffsetDateTime::now_utc() - Duration::from_mins(minutes);
    then.format(&Rfc3339).unwrap()
}

fn open(minutes: u64, by: &str) -> Value {
    let tripped_at = minutes_ago(minutes);
    json!({"state": "open", "trips": 1, "tripped_at": tripped_at, "instance_id": by})
}

fn half_open() -> Value {
    json!({"state": "half-open", "trips": 1, "tripped_at": minutes_ago(20)})
}

/// An instance with a transient failure: SSM ended its restore.
fn transient() -> Given {
    Given {
        sent_before: Some(("TimedOut", String::new())),
        ..ready()
    }
}

/// An instance with a permanent failure: its disk is too small.
fn permanent() -> Given {
    Given {
        sent_before: Some(("Failed", failure())),
        ..ready()
    }
}

#[tokio::test]
async fn a_transient_failure_trips_at_the_third_in_a_row_and_on_trial_at_the_first() {
    check(&transient(), "abandoned", "ABANDON").await;
    let twice = Given {
        failed_before: 1,
        ..transient()
    };
    check(&twice, "abandoned", "ABANDON").await;
    let three_times = Given {
        failed_before: 2,
        ..transient()
    };
    check(&three_times, "abandoned", TRIPPED).await;
    let on_trial = Given {
        breaker: Some(half_open()),
        ..transient()
    };
    let tripped_again = "record open 2; suspend Launch; ABANDON";
    check(&on_trial, "abandoned", tripped_again).await;
}

#[tokio::test]
async fn a_pass_that_was_cut_off_is_continued() {
    let recorded = Given {
        breaker: Some(open(1, INSTANCE)),
        ..permanent()
    };
    check(&recorded, "abandoned", TRIPPED).await;
    let suspended = Given {
        suspended: true,
        ..recorded
    };
    check(&suspended, "abandoned", "ABANDON").await;
}

#[tokio::test]
async fn a_throttled_suspension_is_retried_while_the_instance_waits_and_a_denied_one_is_not() {
    let throttled = Given {
        refuses_to_suspend: Some("Throttling"),
        ..permanent()
    };
    for event in [launching(), sweep_request()] {
        let (answer, done) = handled(&throttled, event).await;
        assert!(
            answer.starts_with("AwsUnavailable: autoscaling:SuspendProcesses"),
            "{answer}"
        );
        assert_eq!(done, "record open 1");
    }
    // The hook would expire soon.
    let late = Given {
        minutes: 29,
        ..throttled
    };
    check(&late, "abandoned", "record open 1; ABANDON").await;
    let denied = Given {
        refuses_to_suspend: Some("AccessDenied"),
        ..permanent()
    };
    check(&denied, "abandoned", "record open 1; ABANDON").await;
}

#[tokio::test]
async fn a_suspension_that_takes_effect_after_the_breaker_was_closed_is_resumed() {
    let late = Given {
        closed_meanwhile: true,
        ..permanent()
    };
    let resumed_again = "record open 1; suspend Launch; resume Launch; ABANDON";
    check(&late, "abandoned", resumed_again).await;
}

#[tokio::test]
async fn an_unreadable_record_does_not_stop_the_answer() {
    let unreadable = Some(json!("nonsense"));
    let failed = Given {
        breaker: unreadable.clone(),
        ..permanent()
    };
    check(&failed, "abandoned", "ABANDON").await;
    let restored = Given {
        sent_before: Some(("Success", success())),
        breaker: unreadable,
        ..ready()
    };
    for event in [launching(), finished("rekindle-restore")] {
        let continued = ("admitted".to_owned(), "CONTINUE".to_owned());
        assert_eq!(handled(&restored, event).await, continued);
    }
}

#[tokio::test]
async fn a_success_closes_the_breaker_before_the_instance_is_admitted() {
    let restored = |breaker| Given {
        sent_before: Some(("Success", success())),
        breaker,
        ..ready()
    };
    let closed = "record closed null; CONTINUE";
    check(&restored(Some(half_open())), "admitted", closed).await;
    let resumed = "resume Launch; record closed null; resume Launch; CONTINUE";
    check(&restored(Some(open(1, OLD_INSTANCE))), "admitted", resumed).await;
    let closed_before = json!({"state": "closed", "closed_at": minutes_ago(9)});
    check(&restored(Some(closed_before)), "admitted", "CONTINUE").await;
}

/// A group with one instance, which is terminated.
fn empty(suspended: bool, breaker: Option<Value>) -> Given {
    Given {
        state: "Terminated",
        suspended,
        breaker,
        ..ready()
    }
}

#[tokio::test]
async fn a_sweep_half_opens_a_breaker_when_its_wait_is_over() {
    let resumed = "resume Launch; record half-open 1; resume Launch";
    let cases = [
        (empty(true, Some(open(16, INSTANCE))), resumed),
        (empty(true, Some(open(14, INSTANCE))), ""),
        (empty(true, None), ""),
        (empty(true, Some(half_open())), ""),
        (empty(false, Some(open(14, INSTANCE))), "record half-open 1"),
        (empty(false, Some(open(1, INSTANCE))), ""),
        (empty(false, Some(half_open())), ""),
    ];
    for (given, done) in cases {
        let found = handled(&given, sweep_request()).await;
        assert_eq!(
            found,
            (String::new(), done.to_owned()),
            "{:?}",
            given.breaker
        );
    }
}

#[tokio::test]
async fn the_answer_to_resume_names_the_state_of_the_launches() {
    let resume = || json!({"rekindle": "resume", "application": "dtr"});
    let cases = [
        (
            empty(true, Some(open(1, INSTANCE))),
            "resumed",
            "resume Launch; record closed null; resume Launch",
        ),
        (
            empty(false, Some(open(1, INSTANCE))),
            "no-longer-on-trial",
            "resume Launch; record closed null; resume Launch",
        ),
        (
            empty(false, Some(half_open())),
            "no-longer-on-trial",
            "record closed null",
        ),
        (empty(false, None), "were-not-suspended", ""),
        (empty(true, None), "suspended-by-somebody-else", ""),
        (
            empty(true, Some(half_open())),
            "suspended-by-somebody-else",
            "record closed null",
        ),
    ];
    for (given, launches, done) in cases {
        let (answer, changes) = handled(&given, resume()).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["application"], "dtr");
        assert_eq!(answer["groups"][0]["group"], "dtr");
        assert_eq!(answer["groups"][0]["launches"], launches);
        assert_eq!(changes, done);
    }
    let other_application = Given {
        tag: Some("git"),
        ..ready()
    };
    let (answer, _) = handled(&other_application, resume()).await;
    let refused = json!({"outcome": "refused", "application": "dtr", "kind": "Refused",
        "reason": "refused: no Auto Scaling group has the tag rekindle:application=dtr",
        "remedy": Kind::Refused.remedy()});
    assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), refused);
}
