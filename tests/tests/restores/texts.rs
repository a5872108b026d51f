//! The texts of a restore that a person or another program reads: reports, the marker and metrics.

use anyhow::{Context as _, Result};
use insta::assert_snapshot;
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use rekindle_tests::nodes::machine::Node;
use rekindle_tests::redaction::redacted_json;
use serde_json::Value;

use super::backed_up;

const APPLICATION: &str = "texts";

/// Returns the JSON of the report of a node's first restore command.
async fn report(protected: &ProtectedGroups, node: &Node) -> Result<Value> {
    let ended = protected.wait_until_ended(node, "restore", 0).await?;
    ended.report()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_boot_and_a_restore_have_these_reports_and_metrics() -> Result<()> {
    let (protected, first, ..) = backed_up(APPLICATION).await?;
    assert_snapshot!(redacted_json(&report(&protected, &first).await?), @r#"
    {
      "operation_id": "launch-[instance]",
      "outcome": {"kind":"first-boot"},
      "peak_memory_kib": "[peak_memory_kib]",
      "report": "restore",
      "seconds": "[seconds]",
      "swap_seconds": "[swap_seconds]"
    }
    "#);

    let next = protected.replace_lost(&first).await?;
    assert_snapshot!(redacted_json(&report(&protected, &next).await?), @r#"
    {
      "operation_id": "launch-[instance]",
      "outcome": {"age_seconds":"[age_seconds]","backup_id":"[backup]","bytes":"[bytes]","kind":"restored","rows":1861},
      "peak_memory_kib": "[peak_memory_kib]",
      "report": "restore",
      "seconds": "[seconds]",
      "swap_seconds": "[swap_seconds]"
    }
    "#);

    let marker = next.marker();
    let marker: Value = serde_json::from_slice(&std::fs::read(marker)?)?;
    assert_snapshot!(redacted_json(&marker), @r#"
    {
      "application": "texts",
      "instance_id": "[instance]",
      "lineage": {"backup_id":"[backup]","kind":"restored"},
      "operation_id": "launch-[instance]",
      "system_identifier": "[system_identifier]",
      "time": "[time]"
    }
    "#);

    let mut lines = protected.standin.logs().into_iter();
    let metrics = lines.find_map(|line| {
        let metrics = line.metrics?;
        metrics.value("RestoreSeconds").and(Some(metrics.raw))
    });
    assert_snapshot!(redacted_json(&metrics.context("no metrics of a restore")?), @r#"
    {
      "Application": "texts",
      "RestoreSeconds": "[RestoreSeconds]",
      "_aws": {"CloudWatchMetrics":[{"Dimensions":[["Application"]],"Metrics":[{"Name":"RestoreSeconds","Unit":"Seconds"}],"Namespace":"Rekindle"}],"Timestamp":"[Timestamp]"}
    }
    "#);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_without_a_good_backup_has_this_report() -> Result<()> {
    let (protected, lost, manifest, _) = backed_up(APPLICATION).await?;
    let standin = &protected.standin;
    let key = &manifest.index.databases[0].key;
    standin.s3().flip_middle(standin.bucket(), key)?;
    standin.kill_instance(lost.id()).await?;
    protected
        .wait_for_failure(APPLICATION, "Verification")
        .await?;
    let group = standin.nodes().into_iter();
    let mut others = group.filter(|node| node.id() != lost.id());
    let node = others.next().context("no instance was launched")?;
    assert_snapshot!(redacted_json(&report(&protected, &node).await?), @r#"
    {
      "exit_code": 25,
      "message": "backups/texts/[day]/[backup]/[run]/postgres/0.dump.zst was changed after the commit: it has [bytes] and the SHA-256 [sha256], but [bytes] and the SHA-256 [sha256] were committed; restore another backup",
      "operation_id": "launch-[instance]",
      "report": "failure"
    }
    "#);
    Ok(())
}
