//! Invalid input: an incomplete environment of a function, and events that no function accepts.

use std::process::Stdio;

use anyhow::{Context as _, Result};
use rekindle_tests::fixtures::protected_groups::{ProtectedGroups, WAIT_LIMIT};
use rekindle_tests::standin::Binaries;
use rekindle_tests::wait::wait_for;
use serde_json::json;
use shared::function::env;
use tokio::process::Command;

use super::event;

#[tokio::test]
async fn a_function_names_every_missing_variable_at_once_and_does_not_start() -> Result<()> {
    let binaries = Binaries::find()?;
    for name in ["backup", "restore"] {
        let output = Command::new(binaries.function(name)?)
            .env_clear()
            .env(env::BUCKET, "some-bucket")
            .stdin(Stdio::null())
            .output()
            .await
            .with_context(|| format!("start {name}"))?;
        assert!(!output.status.success(), "{name}");
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        for variable in [
            env::BACKUP_DOCUMENT,
            env::RESTORE_DOCUMENT,
            env::AGENT,
            env::METRIC_NAMESPACE,
        ] {
            assert!(printed.contains(variable), "{name}: {printed}");
        }
        assert!(!printed.contains(env::BUCKET), "{name}: {printed}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_about_an_invalid_event_names_the_field_and_the_event_becomes_a_dead_letter()
-> Result<()> {
    let protected = ProtectedGroups::start().await?;
    let mut no_instance = event("terminate.json")?;
    no_instance["detail"]
        .as_object_mut()
        .context("detail")?
        .remove("EC2InstanceId");
    let mut no_time = event("schedule-rule.json")?;
    no_time["time"] = json!("yesterday");
    let mut bad_application = event("backup-now.json")?;
    bad_application["application"] = json!("../other");
    let mut bad_limit = event("list-backups.json")?;
    bad_limit["limit"] = json!("many");
    let mut other_hook = event("terminate.json")?;
    other_hook["detail"]["LifecycleHookName"] = json!("somebody-elses");
    let cases = [
        (no_instance, "EC2InstanceId"),
        (no_time, "`time`"),
        (bad_application, "../other"),
        (bad_limit, "many"),
        (other_hook, "LifecycleHookName"),
        (json!({"detail-type": "Something Else"}), "Something Else"),
        (json!({"rekindle": "burn"}), "burn"),
        (json!([]), "detail-type"),
    ];
    let function = protected.standin.function("backup")?;
    for (event, named) in &cases {
        let answer = protected.standin.invoke(&function, event.clone()).await;
        let Err(error) = answer else {
            anyhow::bail!("{event} was accepted: {answer:?}");
        };
        let logs = protected.standin.logs();
        let last = logs.iter().rev().take(8).map(|line| &line.line);
        let last: Vec<&String> = last.collect();
        assert_eq!(error.error_type, "Event", "{error}: {last:#?}");
        assert!(error.message.contains(named), "{error}");
    }

    let lambda = protected.standin.lambda();
    lambda.invoke_async(&function, cases[0].0.clone());
    let letter = wait_for("a dead letter", WAIT_LIMIT, async || {
        Ok::<_, String>(lambda.dead_letters().into_iter().next())
    })
    .await?;
    assert_eq!(letter.payload, cases[0].0);
    assert_eq!(letter.error.error_type, "Event");
    assert!(letter.attempts <= 3, "{letter:?}");
    assert_eq!(lambda.pending(), 0);
    Ok(())
}
