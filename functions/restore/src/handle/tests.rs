//! Complete passes over one launching instance, with a mock of AWS that records each change.

mod breaker;
mod given;

use lambda_runtime::LambdaEvent;
use serde_json::{Value, json};
use shared::exit_code::ExitCode;
use shared::function::env::Config;
use shared::function::lambda::handle_event;
use shared::report::{FailureReport, Report, RestoreOutcome, RestoreReport, SkippedBackup};

use shared::function::answer::Handled;

use super::*;
use given::{BACKUP, COMMAND, Given, INSTANCE, Journal, ready};

fn config() -> Config {
    Config {
        bucket: "backups".to_owned(),
        backup_document: "rekindle-backup".to_owned(),
        restore_document: "rekindle-restore".to_owned(),
        // Any file will do: these tests do not read the published agent.
        agent: concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into(),
        metric_namespace: "Rekindle".to_owned(),
        retention: shared::function::env::Retention::default(),
    }
}

/// Handles an event without a deadline, as `cargo lambda watch` sends it, so that nothing waits. Returns the answer as
/// a text (the decisions about instances, or else JSON, or else the error) and the changes that were made to AWS.
async fn handled(given: &Given, event: Value) -> (String, String) {
    let journal = Journal::default();
    let context = Context::new(given.clients(&journal), config());
    let event = LambdaEvent::new(event, lambda_runtime::Context::default());
    let answer = match handle_event(&context, event, &handle).await {
        Ok(Answer::Handled(handled)) => handled.decision.to_owned(),
        Ok(Answer::Sweep { handled, .. }) => {
            let decisions: Vec<&str> = handled.iter().map(|it| it.decision).collect();
            decisions.join(" ")
        }
        Ok(other) => serde_json::to_string(&other).unwrap(),
        Err(error) => format!("{error:?}"),
    };
    let done = journal.lock().unwrap().join("; ");
    (answer, done)
}

/// The changes when the breaker trips for the first time.
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
        exceptions: shared::report::exceptions::ReportedExceptions::default(),
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

/// Checks that a launch event has this result, and a sweep after a lost event has the same.
async fn check(given: &Given, outcome: &str, done: &str) {
    for event in [launching(), sweep_request()] {
        let found = handled(given, event.clone()).await;
        assert_eq!(found, (outcome.to_owned(), done.to_owned()), "{event}");
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
async fn an_application_that_never_had_a_backup_gets_a_first_boot() {
    let given = Given {
        backups: &[],
        parameter: false,
        ..ready()
    };
    check(&given, "sent-first-boot", &sent("none")).await;
}

#[tokio::test]
async fn an_application_whose_backups_are_gone_is_abandoned() {
    let given = Given {
        backups: &[],
        ..ready()
    };
    check(&given, "abandoned", TRIPPED).await;
}

#[tokio::test]
async fn a_denied_listing_does_not_lead_to_a_first_boot() {
    let given = Given {
        listing_denied: true,
        parameter: false,
        ..ready()
    };
    check(&given, "abandoned", TRIPPED).await;
}

#[tokio::test]
async fn an_application_that_two_groups_share_is_abandoned() {
    let given = Given {
        other_group: true,
        ..ready()
    };
    check(&given, "abandoned", TRIPPED).await;
}

#[tokio::test]
async fn nothing_is_sent_while_waiting_for_the_agent_or_a_predecessor() {
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
    // A group may launch the replacement of an unhealthy member before it terminates the member. Waiting would never
    // end.
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
async fn the_result_of_the_restore_decides_the_answer() {
    let with = |status, output| Given {
        sent_before: Some((status, output)),
        ..ready()
    };
    let cases = [
        (with("Success", success()), "admitted", "CONTINUE"),
        (with("Success", String::new()), "abandoned", "ABANDON"),
        (with("Failed", failure()), "abandoned", TRIPPED),
        (with("TimedOut", String::new()), "abandoned", "ABANDON"),
    ];
    for (given, outcome, answer) in cases {
        check(&given, outcome, answer).await;
        let found = handled(&given, finished("rekindle-restore")).await;
        assert_eq!(found, (outcome.to_owned(), answer.to_owned()));
    }
}

#[tokio::test]
async fn a_backup_committed_during_the_restore_keeps_the_instance_out_of_service() {
    let given = Given {
        sent_before: Some(("Success", success())),
        backups: &["20261123T024500.000Z", "20261123T023000.000Z", BACKUP],
        ..ready()
    };
    check(&given, "abandoned", "ABANDON").await;
    // The report lists this backup as skipped, so it is not restored by another launch either.
    let skipped = Given {
        backups: &["20261123T023000.000Z", BACKUP],
        ..given.clone()
    };
    check(&skipped, "admitted", "CONTINUE").await;
    let denied = Given {
        listing_denied: true,
        ..given.clone()
    };
    check(&denied, "admitted", "CONTINUE").await;
    // The restored backup may be the only one.
    let gone = Given {
        backups: &[],
        ..given.clone()
    };
    check(&gone, "admitted", "CONTINUE").await;
    let slow = Given {
        listing_slow: true,
        ..given
    };
    let (answer, done) = handled(&slow, launching()).await;
    assert!(answer.contains("SlowDown"), "{answer}");
    assert_eq!(done, "heartbeat");
}

#[tokio::test]
async fn a_hook_that_was_answered_before_is_no_failure() {
    let given = Given {
        sent_before: Some(("Success", success())),
        answered_before: true,
        ..ready()
    };
    check(&given, "admitted", "").await;
}

#[tokio::test]
async fn an_instance_in_service_is_not_changed() {
    let given = Given {
        state: "InService",
        ..ready()
    };
    let unchanged = ("already-resolved".to_owned(), String::new());
    assert_eq!(handled(&given, launching()).await, unchanged);
    assert_eq!(
        handled(&given, finished("rekindle-restore")).await,
        unchanged
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
async fn a_group_without_an_application_gets_no_answer() {
    for tag in [None, Some("Not An Application")] {
        let given = Given { tag, ..ready() };
        let refused = ("not-protected".to_owned(), String::new());
        assert_eq!(handled(&given, launching()).await, refused);
    }
}

#[tokio::test]
async fn events_of_the_backup_function_are_refused() {
    let mut terminating = launching();
    terminating["detail-type"] = json!("EC2 Instance-terminate Lifecycle Action");
    let mut other_hook = launching();
    other_hook["detail"]["LifecycleHookName"] = json!("warm-up");
    let cases = [
        (
            terminating,
            "Event: unusable event: the terminate hook belongs to the backup function; send this event there",
        ),
        (
            json!({"rekindle": "backup-now", "application": "dtr"}),
            "Event: unusable event: requests about backups belong to the backup function; send this event there",
        ),
        (
            finished("rekindle-backup"),
            "Event: unusable event: `document-name` is \"rekindle-backup\", but the restore function handles \"rekindle-restore\" only; correct the rule",
        ),
        (
            other_hook,
            "Event: unusable event: `LifecycleHookName` is \"warm-up\", but the restore function handles \"rekindle-launch\" only; correct the rule",
        ),
    ];
    for (event, text) in cases {
        let refused = (text.to_owned(), String::new());
        assert_eq!(handled(&ready(), event).await, refused);
    }
}

#[test]
fn an_answer_has_an_outcome_and_one_entry_for_each_instance() {
    let application = "dtr".parse().unwrap();
    let instance = INSTANCE.parse().unwrap();
    let answer = Answer::Sweep {
        handled: vec![Handled::new(
            Some(&application),
            &instance,
            LaunchStep::WaitingForPredecessor.as_str(),
        )],
        failures: 0,
    };
    let expected = json!({"outcome": "sweep", "failures": 0, "handled": [
        {"application": "dtr", "instance_id": INSTANCE, "decision": "waiting-for-predecessor"}]});
    assert_eq!(serde_json::to_value(answer).unwrap(), expected);
}
