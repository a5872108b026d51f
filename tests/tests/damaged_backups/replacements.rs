//! Damage as a whole group meets it.

use anyhow::{Context as _, Result};
use rekindle_tests::fixtures::standalone;
use rekindle_tests::fixtures::tampering;
use serde_json::Value;
use shared::report::ExitCode;

use super::{APPLICATION, DUMP, Scene, put_back, save};

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_comes_into_service_with_the_newest_good_backup_or_not_at_all() -> Result<()>
{
    let mut scene = Scene::set().await?;
    let saved = save(&scene)?;
    let (newer, older) = (
        scene.newer.index.backup_id.to_string(),
        scene.older.index.backup_id.to_string(),
    );
    let manifest = scene.bytes(&scene.manifest_key())?;

    // A dump that is not what it was.
    scene.flip_in_dump()?;
    scene.replace_node().await?;
    assert_eq!(
        standalone::snapshot(&scene.node).await?.databases,
        scene.then.databases
    );
    let skipped = scene
        .told("a newer backup could not be restored, an older one was")
        .await?;
    assert_eq!(skipped["kind"], "Verification");
    assert_eq!(skipped["remedy"], ExitCode::Verification.remedy());
    let reason = skipped["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(DUMP), "{skipped}");
    let restored = scene.protected.log_lines(0).into_iter().find(|line| {
        line["fields"]["message"] == "restored, and let into service"
            && line["fields"]["instance_id"] == scene.node.id()
    });
    let restored = restored.context("nobody says what was restored")?;
    assert_eq!(restored["fields"]["backup_id"], older.as_str());
    assert!(restored["fields"]["age_seconds"].is_u64(), "{restored}");
    put_back(&saved)?;

    // A manifest that cannot be read, or that is not this application's.
    let garbage: [(&str, Vec<u8>); 3] = [
        ("garbage", b"<html>not a manifest</html>".to_vec()),
        ("cut short", manifest[..manifest.len() / 2].to_vec()),
        ("another application's", {
            let mut json: Value = serde_json::from_slice(&manifest)?;
            json["index"]["application"] = "another".into();
            serde_json::to_vec(&json)?
        }),
    ];
    for (case, bytes) in garbage {
        scene.put(&scene.manifest_key(), &bytes)?;
        scene.replace_node().await?;
        let holding = standalone::snapshot(&scene.node).await?;
        assert_eq!(holding.databases, scene.then.databases, "{case}");
        let told = scene
            .told("a committed backup is not offered to the restore")
            .await?;
        assert_eq!(told["kind"], "UnreadableManifest", "{case}");
        let reason = told["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(&newer), "{case}: {told}");
    }

    // A newer Rekindle's manifest is good, and only unreadable here: nothing older is put in its place.
    tampering::change_manifest(&scene.protected, &scene.newer, |json| {
        json["schema_version"] = 2.into();
    })?;
    scene
        .protected
        .standin
        .kill_instance(scene.node.id())
        .await?;
    scene
        .protected
        .wait_for_failure(APPLICATION, "NewerSchema")
        .await?;

    // No good backup at all. What failed for good is not launched again before the operator says so.
    scene.put(&scene.manifest_key(), &manifest)?;
    scene.flip_in_dump()?;
    let standin = &scene.protected.standin;
    let key = &scene.older.index.databases[0].key;
    standin.s3().truncate(standin.bucket(), key, 10)?;
    scene.protected.resume(APPLICATION).await?;
    scene
        .protected
        .wait_for_failure(APPLICATION, "NoUsableBackup")
        .await?;
    let problems = scene.protected.error_lines(APPLICATION);
    let line = problems
        .iter()
        .find(|line| line["fields"]["kind"] == "NoUsableBackup")
        .context("the line is gone")?;
    let reason = line["fields"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(&newer) && reason.contains(&older), "{line}");
    assert_eq!(line["fields"]["remedy"], ExitCode::NoUsableBackup.remedy());
    // Nobody was let into service since the last good restore.
    let let_in = scene.protected.log_lines(0).into_iter().filter(|line| {
        let message = line["fields"]["message"].as_str().unwrap_or_default();
        message == "restored, and let into service"
    });
    assert_eq!(let_in.count(), 4);
    Ok(())
}
