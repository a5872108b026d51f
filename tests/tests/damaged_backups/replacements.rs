//! Damaged backups in a whole group: its replacements restore a fallback, or none is admitted.

use anyhow::{Context as _, Result};
use rekindle_tests::fixtures::standalone;
use rekindle_tests::fixtures::tampering;
use serde_json::Value;

use super::{APPLICATION, DUMP, Scenario, put_back, save};

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_is_admitted_with_the_newest_good_backup_or_not_at_all() -> Result<()> {
    let mut scenario = Scenario::start().await?;
    let saved = save(&scenario)?;
    let manifest = scenario.bytes(&scenario.manifest_key())?;
    assert_fallback_after_a_damaged_dump(&mut scenario).await?;
    put_back(&saved)?;
    assert_fallback_after_a_damaged_manifest(&mut scenario, &manifest).await?;
    assert_refused_after_a_newer_schema(&scenario).await?;
    // The breaker suspended launches after that permanent failure, so an operator has to resume them.
    assert_refused_without_a_good_backup(&scenario, &manifest).await?;
    let lines = scenario.protected.log(0).into_iter();
    let admitted = lines.filter(|line| line.message == "restored and admitted");
    assert_eq!(admitted.count(), 4);
    Ok(())
}

/// Damages a dump of the newer backup; the next node restores the older one, and both backups are reported.
async fn assert_fallback_after_a_damaged_dump(scenario: &mut Scenario) -> Result<()> {
    scenario.flip_in_dump()?;
    scenario.replace_node().await?;
    assert_eq!(
        standalone::snapshot(&scenario.node).await?.databases,
        scenario.older_data.databases
    );
    let skipped = scenario
        .wait_for_line("a newer backup could not be restored, so an older one was")
        .await?;
    assert!(skipped.has_kind("Verification"), "{skipped}");
    assert!(skipped.contains(DUMP), "{skipped}");
    let restored = scenario
        .protected
        .log(0)
        .into_iter()
        .find(|line| line.has_decision("admit") && line.is_about_instance(scenario.node.id()));
    let restored = restored.context("no line reports the restored backup")?;
    assert_eq!(
        restored.backup_id.as_deref(),
        Some(scenario.older.index.backup_id.as_str())
    );
    assert!(restored.number("age_seconds").is_some(), "{restored}");
    Ok(())
}

/// Replaces the newer backup's manifest by ones that cannot be read, or that belong to another application; each time,
/// the next node restores the older backup.
async fn assert_fallback_after_a_damaged_manifest(
    scenario: &mut Scenario,
    manifest: &[u8],
) -> Result<()> {
    let newer = scenario.newer.index.backup_id.to_string();
    let garbage: [(&str, Vec<u8>); 3] = [
        ("garbage", b"<html>not a manifest</html>".to_vec()),
        ("cut short", manifest[..manifest.len() / 2].to_vec()),
        ("another application's", {
            let mut json: Value = serde_json::from_slice(manifest)?;
            json["index"]["application"] = "another".into();
            serde_json::to_vec(&json)?
        }),
    ];
    for (case, bytes) in garbage {
        scenario.put(&scenario.manifest_key(), &bytes)?;
        scenario.replace_node().await?;
        let data = standalone::snapshot(&scenario.node).await?;
        assert_eq!(data.databases, scenario.older_data.databases, "{case}");
        let line = scenario
            .wait_for_line("a committed backup is not offered to the restore")
            .await?;
        assert!(line.has_kind("UnreadableManifest"), "{case}: {line}");
        assert!(line.contains(&newer), "{case}: {line}");
    }
    Ok(())
}

/// Gives the newer backup's manifest a newer schema. Such a backup is good, and only unreadable for this release, so no
/// older one is restored instead.
async fn assert_refused_after_a_newer_schema(scenario: &Scenario) -> Result<()> {
    tampering::change_manifest(&scenario.protected, &scenario.newer, |json| {
        json["schema_version"] = 2.into();
    })?;
    scenario
        .protected
        .standin
        .kill_instance(scenario.node.id())
        .await?;
    scenario
        .protected
        .wait_for_failure(APPLICATION, "NewerSchema")
        .await?;
    Ok(())
}

/// Damages both backups; no node is admitted.
async fn assert_refused_without_a_good_backup(scenario: &Scenario, manifest: &[u8]) -> Result<()> {
    let newer = scenario.newer.index.backup_id.to_string();
    let older = scenario.older.index.backup_id.to_string();
    scenario.put(&scenario.manifest_key(), manifest)?;
    scenario.flip_in_dump()?;
    let standin = &scenario.protected.standin;
    let key = &scenario.older.index.databases[0].key;
    standin.s3().truncate(standin.bucket(), key, 10)?;
    scenario.protected.resume(APPLICATION).await?;
    let line = scenario
        .protected
        .wait_for_failure(APPLICATION, "NoUsableBackup")
        .await?;
    assert!(line.contains(&newer) && line.contains(&older), "{line}");
    Ok(())
}
