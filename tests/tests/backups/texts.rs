//! The texts of a backup that a person or another program reads: reports, manifests, keys, metrics and answers.

use anyhow::{Context as _, Result};
use insta::assert_snapshot;
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use rekindle_tests::redaction::{redacted, redacted_json};
use serde_json::{Value, json};
use shared::layout;

const APPLICATION: &str = "texts";

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
    assert_snapshot!(redacted_json(&ended.report()?), @r#"
    {
      "backup_id": "[backup]",
      "bytes": "[bytes]",
      "databases": 2,
      "index_sha256": "[sha256]",
      "index_size": "[index_size]",
      "operation_id": "[backup]",
      "peak_memory_kib": "[peak_memory_kib]",
      "report": "backup",
      "rows": 1861,
      "run_id": "[run_id]",
      "seconds": "[seconds]",
      "tables": 8
    }
    "#);
    assert_snapshot!(metric_line(&protected, "BackupBytes")?, @r#"
    {
      "Application": "texts",
      "BackupAge": "[BackupAge]",
      "BackupBytes": "[BackupBytes]",
      "BackupRows": 1861.0,
      "BackupSeconds": "[BackupSeconds]",
      "_aws": {
        "CloudWatchMetrics": [
          {
            "Dimensions": [["Application"]],
            "Metrics": [{"Name":"BackupAge","Unit":"Seconds"},{"Name":"BackupBytes","Unit":"Bytes"},{"Name":"BackupSeconds","Unit":"Seconds"},{"Name":"BackupRows","Unit":"Count"}],
            "Namespace": "Rekindle"
          }
        ],
        "Timestamp": "[Timestamp]"
      }
    }
    "#);

    let (s3, bucket) = (protected.standin.s3(), protected.standin.bucket());
    let keys = s3.keys(bucket, "")?;
    let keys = keys.iter().filter(|key| !key.starts_with("agent/"));
    let keys: Vec<String> = keys.map(|key| redacted(key)).collect();
    assert_snapshot!(keys.join("\n"), @r#"
    backups/texts/[day]/[backup]/[run]/config.tar.zst
    backups/texts/[day]/[backup]/[run]/contents.json.zst
    backups/texts/[day]/[backup]/[run]/globals.sql.zst
    backups/texts/[day]/[backup]/[run]/index.json
    backups/texts/[day]/[backup]/[run]/postgres/0.dump.zst
    backups/texts/[day]/[backup]/[run]/postgres/1.dump.zst
    commits/[backup]/texts
    manifests/texts/[day]/[backup].json
    "#);
    let key = layout::manifest(&manifest.index.application, &manifest.index.backup_id);
    assert_manifest(&serde_json::from_slice(&s3.read(bucket, &key)?)?);
    Ok(())
}

/// Checks the text of a manifest, which contains the backup's index.
fn assert_manifest(manifest: &Value) {
    assert_snapshot!(redacted_json(manifest), @r#"
    {
      "command_id": "[command]",
      "committed_at": "[time]",
      "index": {
        "application": "texts",
        "backup_id": "[backup]",
        "configuration_paths": ["/var/local/dtr","/usr/local/etc/dtr"],
        "databases": [
          {
            "database_bytes": "[database_bytes]",
            "dump_bytes": "[dump_bytes]",
            "key": "backups/texts/[day]/[backup]/[run]/postgres/0.dump.zst",
            "name": "notary",
            "rows": 500,
            "tables": 1
          },
          {
            "database_bytes": "[database_bytes]",
            "dump_bytes": "[dump_bytes]",
            "key": "backups/texts/[day]/[backup]/[run]/postgres/1.dump.zst",
            "name": "postgres",
            "rows": 1361,
            "tables": 7
          }
        ],
        "finished_at": "[time]",
        "node": {"instance_id":"[instance]","lineage":{"kind":"first-boot"},"system_identifier":"[system_identifier]"},
        "objects": [
          {"crc64":"[crc64]","key":"backups/texts/[day]/[backup]/[run]/postgres/0.dump.zst","sha256":"[sha256]","size":"[size]","version_id":"[version_id]"},
          {"crc64":"[crc64]","key":"backups/texts/[day]/[backup]/[run]/postgres/1.dump.zst","sha256":"[sha256]","size":"[size]","version_id":"[version_id]"},
          {"crc64":"[crc64]","key":"backups/texts/[day]/[backup]/[run]/globals.sql.zst","sha256":"[sha256]","size":"[size]","version_id":"[version_id]"},
          {"crc64":"[crc64]","key":"backups/texts/[day]/[backup]/[run]/config.tar.zst","sha256":"[sha256]","size":"[size]","version_id":"[version_id]"},
          {"crc64":"[crc64]","key":"backups/texts/[day]/[backup]/[run]/contents.json.zst","sha256":"[sha256]","size":"[size]","version_id":"[version_id]"}
        ],
        "operation_id": "[backup]",
        "purpose": "scheduled",
        "run_id": "[run_id]",
        "schema_version": 1,
        "started_at": "[time]",
        "timings": [
          {"seconds":"[seconds]","stage":"list"},
          {"seconds":"[seconds]","stage":"dump notary"},
          {"seconds":"[seconds]","stage":"dump postgres"},
          {"seconds":"[seconds]","stage":"globals"},
          {"seconds":"[seconds]","stage":"configuration"},
          {"seconds":"[seconds]","stage":"contents"},
          {"seconds":"[seconds]","stage":"images"}
        ],
        "versions": {"agent":"[agent]","pg_dump":"[pg_dump]","server":"[server]"}
      },
      "index_object": {"crc64":"[crc64]","key":"backups/texts/[day]/[backup]/[run]/index.json","sha256":"[sha256]","size":"[size]","version_id":"[version_id]"},
      "schema_version": 1
    }
    "#);
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
    let mut report = ended.report()?;
    // The message ends with psql's own text, which depends on its version.
    let message = report["message"].as_str().unwrap_or_default();
    let start = message.split('(').next().unwrap_or_default();
    report["message"] = format!("{start}…").into();
    assert_snapshot!(redacted_json(&report), @r#"
    {"exit_code":20,"message":"psql on database \"template1\" failed …","operation_id":"[backup]","report":"failure"}
    "#);
    assert_snapshot!(metric_line(&protected, "Failures")?, @r#"
    {
      "Application": "texts",
      "Failures": 1,
      "Kind": "PostgresUnreachable",
      "_aws": {
        "CloudWatchMetrics": [{"Dimensions":[[],["Application"],["Application","Kind"]],"Metrics":[{"Name":"Failures","Unit":"Count"}],"Namespace":"Rekindle"}],
        "Timestamp": "[Timestamp]"
      }
    }
    "#);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_to_requests_have_these_fields() -> Result<()> {
    let (protected, _node) = ProtectedGroups::with_filled_group(APPLICATION).await?;
    let backup = protected.back_up(APPLICATION).await?.index.backup_id;
    let list = json!({"rekindle": "list-backups", "application": APPLICATION});
    let answer = protected.invoke("backup", list).await?;
    assert_snapshot!(redacted_json(&answer), @r#"
    {
      "application": "texts",
      "backups": [{"backup_id":"[backup]","bytes":"[bytes]","committed_at":"[time]","instance_id":"[instance]","pinned":false,"purpose":"scheduled","rows":1861}],
      "outcome": "backups"
    }
    "#);
    let answer = protected.request("pin", APPLICATION, &backup).await?;
    assert_snapshot!(redacted_json(&answer), @r#"
    {
      "application": "texts",
      "backup_id": "[backup]",
      "decision": "pin",
      "message": "the backup is pinned: retention does not delete it until it is unpinned",
      "outcome": "done"
    }
    "#);
    let answer = protected
        .request("accept-quarantined", APPLICATION, &backup)
        .await?;
    assert_snapshot!(redacted_json(&answer), @r#"
    {"application":"texts","backup_id":"[backup]","decision":"already-committed","message":"the backup is committed already","outcome":"done"}
    "#);
    let unknown = "20200101T000000.000Z".parse()?;
    let answer = protected.request("pin", APPLICATION, &unknown).await?;
    assert_snapshot!(redacted_json(&answer), @r#"
    {
      "application": "texts",
      "kind": "Refused",
      "outcome": "refused",
      "reason": "refused: the application texts has no backup [backup]; send list-backups to see those it has",
      "remedy": "Correct the group's tag, the group's size or the request; the reason names which."
    }
    "#);
    let answer = protected
        .request("restore-backup", APPLICATION, &backup)
        .await?;
    assert_snapshot!(redacted_json(&answer), @r#"
    {"application":"texts","backup_id":"[backup]","command_id":"[command]","instance_id":"[instance]","outcome":"requested"}
    "#);
    let answer = protected.resume(APPLICATION).await?;
    assert_snapshot!(redacted_json(&answer), @r#"
    {"application":"texts","groups":[{"group":"texts","launches":"were-not-suspended","message":"This group's launches are not suspended."}],"outcome":"resumed"}
    "#);
    Ok(())
}
