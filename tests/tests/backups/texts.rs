//! The texts of a backup that a person or another program reads: reports, manifests, keys, metrics and answers.

use anyhow::{Context as _, Result};
use insta::assert_snapshot;
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use rekindle_tests::redaction::{redacted, redacted_json};
use serde_json::Value;
use shared::layout;

const APPLICATION: &str = "texts";

/// Returns the JSON of an agent's report: the last line of its output.
fn report(output: &str) -> Result<Value> {
    let line = output.lines().last().context("the agent printed nothing")?;
    let json = line.find('{').context("the line contains no JSON")?;
    Ok(serde_json::from_str(&line[json..])?)
}

/// Returns the first metric line of the application that contains this metric.
fn metric_line(protected: &ProtectedGroups, metric: &str) -> Result<String> {
    let mut lines = protected.standin.logs().into_iter();
    let line = lines.find_map(|line| {
        let metrics = line.metrics?;
        (metrics.is_about(APPLICATION) && metrics.value(metric).is_some()).then_some(metrics.raw)
    });
    Ok(redacted_json(
        &line.with_context(|| format!("no line with {metric}"))?,
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_has_this_report_manifest_index_keys_and_metrics() -> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group(APPLICATION).await?;
    let manifest = protected.back_up(APPLICATION).await?;
    // The commit marker and the metrics are written after the manifest.
    protected.wait_until_idle().await?;
    let ended = protected.wait_until_ended(&node, "backup", 0).await?;
    assert_snapshot!(redacted_json(&report(&ended.output)?), @"");

    let standin = &protected.standin;
    let (s3, bucket) = (standin.s3(), standin.bucket());
    let key = layout::manifest(&manifest.index.application, &manifest.index.backup_id);
    let stored: Value = serde_json::from_slice(&s3.read(bucket, &key)?)?;
    assert_snapshot!(redacted_json(&stored), @"");

    let keys = s3.keys(bucket, "")?;
    let keys = keys.iter().filter(|key| !key.starts_with("agent/"));
    let keys: Vec<String> = keys.map(|key| redacted(key)).collect();
    assert_snapshot!(keys.join("\n"), @"");
    assert_snapshot!(metric_line(&protected, "BackupBytes")?, @"");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_backup_has_this_report_and_metric() -> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group(APPLICATION).await?;
    node.cluster()?.stop().await?;
    protected.standin.tick();
    protected
        .wait_for_failure(APPLICATION, "PostgresUnreachable")
        .await?;
    let ended = protected.wait_until_ended(&node, "backup", 0).await?;
    let mut report = report(&ended.output)?;
    // The message ends with psql's own text, which depends on its version.
    let message = report["message"].as_str().unwrap_or_default();
    let start = message.split(':').next().unwrap_or_default();
    report["message"] = format!("{start}: …").into();
    assert_snapshot!(redacted_json(&report), @"");
    assert_snapshot!(metric_line(&protected, "Failures")?, @"");
    Ok(())
}
