//! The Lambda stand-in, with a shell script as `bootstrap` that calls the Runtime API with curl.

#![expect(
    clippy::unwrap_used,
    reason = "a failure of the setup is a failure of the test"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rekindle_tests::nodes::write_program;
use rekindle_tests::standin::lambda::{Function, Lambda, Settings};
use rekindle_tests::wait::wait_for;
use serde_json::{Value, json};

/// Behaves as the event demands (`fail`, `crash`, `hang`, `slow`), and logs each event with its number in this process.
const BOOTSTRAP: &str = r#"#!/bin/bash
api="$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime" # with its scheme, because the Rust runtime accepts a path only after one
headers="$(mktemp)"; trap 'rm -f "$headers"' EXIT
if [ "$BROKEN" ]; then
  curl -s -o /dev/null -X POST "$api/init/error" -d '{"errorType":"Config","errorMessage":"set BUCKET"}'; exit 1
fi
while true; do
  event="$(curl -s -D "$headers" "$api/invocation/next")" || exit 0
  id="$(tr -d '\r' <"$headers" | sed -n 's/^lambda-runtime-aws-request-id: //p')"
  deadline="$(tr -d '\r' <"$headers" | sed -n 's/^lambda-runtime-deadline-ms: //p')"
  [ "$id" ] || exit 0
  count=$((count + 1))
  echo "{\"event\":$event,\"count\":$count,\"id\":\"$id\"}"
  case "$event" in
    *fail*) curl -s -o /dev/null -X POST "$api/invocation/$id/error" -d '{"errorType":"Denied","errorMessage":"no"}' ;;
    *crash*) echo "dying" >&2; exit 3 ;;
    *hang*) exec sleep 60 ;;
    *slow*) sleep 0.5; curl -s -o /dev/null -X POST "$api/invocation/$id/response" -d "{\"pid\":$$}" ;;
    *) curl -s -o /dev/null -X POST "$api/invocation/$id/response" \
         -d "{\"pid\":$$,\"deadline\":$deadline,\"name\":\"$AWS_LAMBDA_FUNCTION_NAME\",\"own\":\"$OWN\"}" ;;
  esac
done >&1
"#;

/// Returns a function that runs [`BOOTSTRAP`].
fn function(directory: &Path, name: &str) -> Function {
    let binary = directory.join("bootstrap");
    write_program(&binary, BOOTSTRAP).unwrap();
    Function {
        name: name.to_owned(),
        binary,
        environment: BTreeMap::from([("OWN".to_owned(), "variable".to_owned())]),
        timeout: Duration::from_secs(20),
        memory_mb: 256,
        concurrency: 2,
        retries: 2,
        max_event_age: Duration::from_mins(10),
    }
}

async fn start(functions: Vec<Function>) -> Lambda {
    let settings = Settings {
        region: "eu-central-1".to_owned(),
        time_scale: 600.0,
        echo: None,
        log_level: "INFO".to_owned(),
    };
    Lambda::start(settings, functions).await.unwrap()
}

/// Waits until no asynchronous event is running or waits for a retry.
async fn wait_until_idle(lambda: &Lambda) {
    wait_for(
        "the events to finish",
        Duration::from_secs(20),
        async || match lambda.pending() {
            0 => Ok(Some(())),
            left => Err(format!("{left} events are pending")),
        },
    )
    .await
    .unwrap();
}

/// Returns the events in the log once there are at least `expected`.
async fn events(lambda: &Lambda, expected: usize) -> Vec<Value> {
    wait_for(
        "the events in the log",
        Duration::from_secs(5),
        async || {
            let lines = lambda.logs().into_iter().filter_map(|line| line.json);
            let events: Vec<Value> = lines.filter(|json| json["count"].is_u64()).collect();
            if events.len() >= expected {
                Ok(Some(events))
            } else {
                Err(format!("{events:?}"))
            }
        },
    )
    .await
    .unwrap()
}

#[tokio::test]
async fn an_idle_process_is_reused_and_a_busy_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let lambda = start(vec![function(directory.path(), "backup")]).await;
    assert_eq!(lambda.processes("backup").len(), 0);
    let first = lambda.invoke("backup", json!({"n": 1})).await.unwrap();
    let second = lambda.invoke("backup", json!({"n": 2})).await.unwrap();
    assert_eq!(first["pid"], second["pid"]);
    assert_eq!(
        (&first["name"], &first["own"]),
        (&json!("backup"), &json!("variable"))
    );
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let left = first["deadline"].as_u64().unwrap() / 1000 - now.as_secs();
    assert!((10..=20).contains(&left), "{left} s are left");

    let slow = || lambda.invoke("backup", json!("slow"));
    let before = Instant::now();
    let (a, b, c) = tokio::join!(slow(), slow(), slow());
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_ne!(a["pid"], b["pid"]);
    assert!(c.is_ok());
    assert!(
        before.elapsed() >= Duration::from_secs(1),
        "the limit is two at once"
    );
    assert_eq!(lambda.processes("backup").len(), 2);
    assert_eq!(lambda.cold_starts().len(), 2);
    assert_eq!(events(&lambda, 5).await.len(), 5);
}

#[tokio::test]
async fn failures_crashes_and_timeouts_are_distinguished() {
    let directory = tempfile::tempdir().unwrap();
    let hasty = Function {
        timeout: Duration::from_secs(1),
        ..function(directory.path(), "hasty")
    };
    let mut broken = function(directory.path(), "broken");
    broken
        .environment
        .insert("BROKEN".to_owned(), "1".to_owned());
    let lambda = start(vec![hasty, broken]).await;
    let error = async |name: &str, what: &str| {
        let error = lambda.invoke(name, json!(what)).await.unwrap_err();
        (error.error_type, error.message)
    };
    assert_eq!(
        error("hasty", "fail").await,
        ("Denied".to_owned(), "no".to_owned())
    );
    let (kind, message) = error("hasty", "crash").await;
    assert_eq!(kind, "Runtime.ExitError");
    assert!(message.contains("exit status: 3"), "{message}");
    let (kind, message) = error("hasty", "hang").await;
    assert_eq!(kind, "Sandbox.Timedout");
    assert!(
        message.ends_with("Task timed out after 1.00 seconds"),
        "{message}"
    );
    assert_eq!(
        error("broken", "x").await,
        ("Config".to_owned(), "set BUCKET".to_owned())
    );
    assert_eq!(error("absent", "x").await.0, "ResourceNotFoundException");
    // After each of these, a new process handles the next event.
    lambda.invoke("hasty", json!("fine")).await.unwrap();
    assert!(lambda.logs().iter().any(|line| line.line == "dying"));
}

#[tokio::test]
async fn an_asynchronous_event_becomes_a_dead_letter_after_three_attempts() {
    let directory = tempfile::tempdir().unwrap();
    let lambda = start(vec![function(directory.path(), "backup")]).await;
    lambda.invoke_async("backup", json!("fail"));
    wait_until_idle(&lambda).await;
    let tries = events(&lambda, 3).await;
    assert_eq!(tries.len(), 3);
    assert!(
        tries.iter().all(|one| one["id"] == tries[0]["id"]),
        "{tries:?}"
    );
    let dead = lambda.dead_letters();
    assert_eq!((dead.len(), dead[0].attempts), (1, 3));
    assert_eq!(dead[0].payload, json!("fail"));
    assert_eq!(dead[0].error.error_type, "Denied");

    let old = Function {
        max_event_age: Duration::from_mins(1),
        ..function(directory.path(), "old")
    };
    let lambda = start(vec![old]).await;
    lambda.invoke_async("old", json!("fail"));
    wait_until_idle(&lambda).await;
    assert_eq!(
        lambda.dead_letters()[0].error.error_type,
        "EventAgeExceeded"
    );
}

#[tokio::test]
async fn a_duplicated_event_is_delivered_twice_and_the_next_one_once() {
    let directory = tempfile::tempdir().unwrap();
    let lambda = start(vec![function(directory.path(), "backup")]).await;
    lambda.duplicate_next(1);
    lambda.invoke_async("backup", json!({"n": 1}));
    lambda.invoke_async("backup", json!({"n": 2}));
    wait_until_idle(&lambda).await;
    let events = events(&lambda, 3).await;
    let of = |n: u64| {
        events
            .iter()
            .filter(|event| event["event"]["n"] == n)
            .count()
    };
    assert_eq!((of(1), of(2)), (2, 1));
    assert!(lambda.dead_letters().is_empty());
}

#[tokio::test]
async fn no_process_is_left_running() {
    let directory = tempfile::tempdir().unwrap();
    let lambda = start(vec![function(directory.path(), "backup")]).await;
    lambda.invoke("backup", json!(1)).await.unwrap();
    let process = lambda.processes("backup")[0];
    drop(lambda);
    wait_for("the process to end", Duration::from_secs(5), async || {
        let status = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let gone = status.is_empty() || status.contains(") Z ");
        if gone { Ok(Some(())) } else { Err(status) }
    })
    .await
    .unwrap();
}
