//! Whole passes over one launching instance, against an AWS that writes down what is done to it.

mod breaker;
mod given;

use lambda_runtime::Context;
use serde_json::json;
use shared::report::{
    ExitCode, FailureReport, Report, RestoreOutcome, RestoreReport, SkippedBackup,
};

use super::*;
use given::{BACKUP, COMMAND, Given, INSTANCE, Journal, ready};

fn config() -> Config {
    Config {
        bucket: "backups".to_owned(),
        backup_document: "rekindle-backup".to_owned(),
        restore_document: "rekindle-restore".to_owned(),
        // Any file serves: what is published is not looked at here.
        agent: concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into(),
        metric_namespace: "Rekindle".to_owned(),
        retention: shared::env::Retention::default(),
    }
}

/// Handles an event, as under `cargo lambda watch` with no time to wait; says what came of it and what was done.
async fn handled(given: &Given, event: Value) -> (String, String) {
    let journal = Journal::default();
    let aws = given.clients(&journal);
    let event = LambdaEvent::new(event, Context::default());
    let answer = match handle(&aws, &config(), event).await {
        Ok(Answer::Advanced(advanced)) => {
            let outcomes = advanced
                .iter()
                .map(|it| serde_json::to_value(it.outcome).unwrap());
            let outcomes: Vec<String> =
                outcomes.map(|it| it.as_str().unwrap().to_owned()).collect();
            outcomes.join(" ")
        }
        Ok(other) => serde_json::to_string(&other).unwrap(),
        Err(error) => format!("{error:?}"),
    };
    let done = journal.lock().unwrap().join("; ");
    (answer, done)
}

/// What is done where the breaker trips for the first time, in this order.
const TRIPPED: &str = "record open 1; suspend Launch; ABANDON";

fn launching() -> Value {
    json!({"detail-type": "EC2 Instance-launch Lifecycle Action", "source": "aws.autoscaling", "detail": {
        "AutoScalingGroupName": "dtr", "LifecycleHookName": "rekindle-launch", "EC2InstanceId": INSTANCE}})
}

fn finished(document: &str) -> Value {
    json!({"detail-type": "EC2 Command Invocation Status-change Notification", "source": "aws.ssm", "detail": {
        "command-id": COMMAND, "document-name": document, "instance-id": INSTANCE, "status": "Success"}})
}

fn sweep_request() -> Value {
    json!({"rekindle": "sweep"})
}

fn success() -> String {
    Report::Restore(RestoreReport {
        operation_id: format!("launch-{INSTANCE}").parse().unwrap(),
        outcome: RestoreOutcome::Restored {
            backup_id: BACKUP.parse().unwrap(),
            age_seconds: 62,
            rows: 100_000,
            bytes: 1_000_000,
        },
        skipped: vec![SkippedBackup {
            backup_id: "20261123T023000.000Z".parse().unwrap(),
            exit_code: ExitCode::Verification,
            reason: "cut short".to_owned(),
        }],
        seconds: 4.5,
        swap_seconds: 0.1,
        peak_memory_kib: 1,
    })
    .to_line()
}

fn failure() -> String {
    Report::Failure(FailureReport {
        operation_id: format!("launch-{INSTANCE}").parse().unwrap(),
        exit_code: ExitCode::DiskTooSmall,
        message: "12 GiB needed, 8 GiB free".to_owned(),
    })
    .to_line()
}

/// Checks that a launch event, and the sweep that follows a lost one, come to the same.
async fn check(given: &Given, outcome: &str, done: &str) {
    for event in [launching(), sweep_request()] {
        let came = handled(given, event.clone()).await;
        assert_eq!(came, (outcome.to_owned(), done.to_owned()), "{event}");
    }
}

fn sent(candidates: &str) -> String {
    format!("send launch-{INSTANCE} {candidates}")
}

#[tokio::test]
async fn a_ready_instance_is_sent_its_restore_and_gets_no_answer_yet() {
    let candidate = format!("{BACKUP}/0a1b2c3d/{}/v1", "ab".repeat(32));
    check(&ready(), "sent-restore", &sent(&candidate)).await;
}

#[tokio::test]
async fn a_application_without_a_past_is_sent_its_first_boot() {
    let given = Given {
        backups: &[],
        parameter: false,
        ..ready()
    };
    check(&given, "sent-first-boot", &sent("none")).await;
}

#[tokio::test]
async fn a_application_whose_backups_are_gone_is_abandoned() {
    let given = Given {
        backups: &[],
        ..ready()
    };
    check(&given, "abandoned", TRIPPED).await;
}

#[tokio::test]
async fn a_denied_listing_is_no_first_boot() {
    let given = Given {
        listing_denied: true,
        parameter: false,
        ..ready()
    };
    check(&given, "abandoned", TRIPPED).await;
}

#[tokio::test]
async fn a_application_that_two_groups_share_is_abandoned() {
    let given = Given {
        other_group: true,
        ..ready()
    };
    check(&given, "abandoned", TRIPPED).await;
}

#[tokio::test]
async fn nothing_is_done_while_the_agent_or_a_predecessor_is_waited_for() {
    let unregistered = Given {
        registered: false,
        ..ready()
    };
    check(&unregistered, "waiting-for-agent", "").await;
    let refused = Given {
        refuses_command: true,
        ..ready()
    };
    check(&refused, "waiting-for-agent", "").await;
    for state in [
        "Terminating",
        "Terminating:Wait",
        "Terminating:Proceed",
        "InService",
    ] {
        let fenced = Given {
            predecessor: Some(state),
            ..ready()
        };
        check(&fenced, "waiting-for-predecessor", "").await;
    }
    // A group may launch first what replaces an unhealthy member: waiting for that one would never end.
    let unhealthy = Given {
        predecessor: Some("InService"),
        health: "Unhealthy",
        backups: &[],
        parameter: false,
        ..ready()
    };
    check(&unhealthy, "sent-first-boot", &sent("none")).await;
    let retained = Given {
        predecessor: Some("Terminating:Retained"),
        backups: &[],
        parameter: false,
        ..ready()
    };
    check(&retained, "sent-first-boot", &sent("none")).await;
}

#[tokio::test]
async fn a_second_delivery_sends_nothing_and_keeps_the_hook_open() {
    let given = Given {
        sent_before: Some(("InProgress", String::new())),
        ..ready()
    };
    check(&given, "already-running", "heartbeat").await;
}

#[tokio::test]
async fn the_end_of_the_restore_is_the_answer() {
    let with = |status, output| Given {
        sent_before: Some((status, output)),
        ..ready()
    };
    let cases = [
        (with("Success", success()), "continued", "CONTINUE"),
        (with("Success", String::new()), "abandoned", "ABANDON"),
        (with("Failed", failure()), "abandoned", TRIPPED),
        (with("TimedOut", String::new()), "abandoned", "ABANDON"),
    ];
    for (given, outcome, answer) in cases {
        check(&given, outcome, answer).await;
        let came = handled(&given, finished("rekindle-restore")).await;
        assert_eq!(came, (outcome.to_owned(), answer.to_owned()));
    }
}

#[tokio::test]
async fn a_backup_that_was_committed_meanwhile_keeps_the_instance_out_of_service() {
    let given = Given {
        sent_before: Some(("Success", success())),
        backups: &["20261123T024500.000Z", "20261123T023000.000Z", BACKUP],
        ..ready()
    };
    check(&given, "abandoned", "ABANDON").await;
    // The one that its report names as skipped is known to be no good.
    let skipped = Given {
        backups: &["20261123T023000.000Z", BACKUP],
        ..given.clone()
    };
    check(&skipped, "continued", "CONTINUE").await;
    let denied = Given {
        listing_denied: true,
        ..given.clone()
    };
    check(&denied, "continued", "CONTINUE").await;
    // What is restored may be all that there is.
    let gone = Given {
        backups: &[],
        ..given.clone()
    };
    check(&gone, "continued", "CONTINUE").await;
    let slow = Given {
        listing_slow: true,
        ..given
    };
    let (answer, done) = handled(&slow, launching()).await;
    assert!(answer.contains("SlowDown"), "{answer}");
    assert_eq!(done, "heartbeat");
}

#[tokio::test]
async fn an_answer_that_was_given_before_is_no_failure() {
    let given = Given {
        sent_before: Some(("Success", success())),
        answered_before: true,
        ..ready()
    };
    check(&given, "continued", "").await;
}

#[tokio::test]
async fn an_instance_in_service_is_left_alone() {
    let given = Given {
        state: "InService",
        ..ready()
    };
    let left_alone = ("already-resolved".to_owned(), String::new());
    assert_eq!(handled(&given, launching()).await, left_alone);
    assert_eq!(
        handled(&given, finished("rekindle-restore")).await,
        left_alone
    );
    let nothing = (String::new(), String::new());
    assert_eq!(handled(&given, sweep_request()).await, nothing);
}

#[tokio::test]
async fn an_instance_passes_into_the_warm_pool_without_a_restore() {
    let given = Given {
        state: "Warmed:Pending:Wait",
        ..ready()
    };
    check(&given, "passed-into-warm-pool", "CONTINUE").await;
}

#[tokio::test]
async fn a_replaced_root_volume_is_abandoned() {
    let mut event = launching();
    event["detail"]["Action"] = json!("ReplaceRootVolume");
    let abandoned = ("abandoned".to_owned(), "ABANDON".to_owned());
    assert_eq!(handled(&ready(), event).await, abandoned);
}

#[tokio::test]
async fn a_group_without_a_application_gets_no_answer() {
    for tag in [None, Some("Not A Application")] {
        let given = Given { tag, ..ready() };
        let refused = ("not-protected".to_owned(), String::new());
        assert_eq!(handled(&given, launching()).await, refused);
    }
}

#[tokio::test]
async fn what_belongs_to_the_backup_function_is_refused_by_name() {
    let mut terminating = launching();
    terminating["detail-type"] = json!("EC2 Instance-terminate Lifecycle Action");
    let mut other_hook = launching();
    other_hook["detail"]["LifecycleHookName"] = json!("warm-up");
    let cases = [
        (
            terminating,
            "Event: unusable event: the terminate hook is the backup function's; send this event there",
        ),
        (
            json!({"rekindle": "backup-now", "application": "dtr"}),
            "Event: unusable event: requests on backups are the backup function's; send this event there",
        ),
        (
            finished("rekindle-backup"),
            "Event: unusable event: `document-name` is \"rekindle-backup\"; the restore function handles \"rekindle-restore\" alone",
        ),
        (
            other_hook,
            "Event: unusable event: `LifecycleHookName` is \"warm-up\"; the restore function handles \"rekindle-launch\" alone",
        ),
    ];
    for (event, words) in cases {
        let refused = (words.to_owned(), String::new());
        assert_eq!(handled(&ready(), event).await, refused);
    }
}

#[test]
fn the_answer_of_an_invocation_is_one_entry_per_instance() {
    let advanced = Answer::Advanced(vec![Advanced {
        instance_id: INSTANCE.parse().unwrap(),
        outcome: Outcome::WaitingForPredecessor,
    }]);
    let expected = json!([{"instance_id": INSTANCE, "outcome": "waiting-for-predecessor"}]);
    assert_eq!(serde_json::to_value(advanced).unwrap(), expected);
}
