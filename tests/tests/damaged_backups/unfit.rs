//! Backups that are good, and not for this node: nothing older is put in their place.

use anyhow::{Context as _, Result};
use rekindle_tests::fixtures::standalone::StandaloneNode;
use rekindle_tests::fixtures::tampering;
use shared::command::Candidate;
use shared::layout;
use shared::report::ExitCode;

use super::{APPLICATION, Scene, assert_refused};

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_cannot_fit_is_refused_before_anything_changes() -> Result<()> {
    let scene = Scene::set().await?;
    let standalone = StandaloneNode::with_data(&scene.protected, APPLICATION).await?;
    let before = standalone.snapshot().await?;
    let (protected, newer) = (&scene.protected, &scene.newer);

    let too_new = tampering::forge(protected, newer, |index, _| {
        index.versions.server = 990_001;
        Ok(())
    })?;
    let extended = tampering::forge(protected, newer, |_, parts| {
        let part = parts.get_mut(layout::CONTENTS).context("no contents")?;
        tampering::edit_contents(part, |contents| {
            contents["databases"][0]["properties"]["extensions"] = serde_json::json!([{"name": "no_such_extension", "version": "1.0", "schema": "public"}]);
        })
    })?;
    let huge = tampering::forge(protected, newer, |index, _| {
        index.databases[0].database_bytes = 1 << 60;
        Ok(())
    })?;
    let foreign = tampering::forge(protected, newer, |index, _| {
        index.application = "another".parse()?;
        Ok(())
    })?;
    let foreign = Candidate {
        // The node looks below its own application's prefix alone.
        index_sha256: foreign.index_object.sha256.clone(),
        ..newer.candidate()
    };
    let from_the_future = tampering::forge(protected, newer, |index, _| {
        index.schema_version = 2;
        Ok(())
    })?;
    let cases = [
        (
            too_new.candidate(),
            ExitCode::ServerTooOld,
            "backup is of 99",
        ),
        (
            extended.candidate(),
            ExitCode::ExtensionMissing,
            "no_such_extension 1.0",
        ),
        (huge.candidate(), ExitCode::DiskTooSmall, "MiB free"),
        (foreign, ExitCode::Verification, "index.json"),
        (
            from_the_future.candidate(),
            ExitCode::NoUsableBackup,
            "schema",
        ),
    ];
    for (candidate, code, word) in cases {
        // An older backup would do, and must not be taken: it would lose data that are still there. Only one
        // that is not what it was is passed over.
        let older = (code != ExitCode::Verification).then(|| scene.older.candidate());
        let candidates: Vec<Candidate> = std::iter::once(candidate).chain(older).collect();
        let operation = format!("launch-{}", code.word());
        let answer = standalone.restore(&operation, &candidates).await?;
        assert_refused(&answer, code, word, code.word())?;
        assert_eq!(
            standalone.snapshot().await?,
            before,
            "{code}: {}",
            answer.log
        );
        assert!(!standalone.marker().exists(), "{code}");
    }

    // What the agent found is what the function's log and metric say, with the remedy.
    tampering::commit(protected, &huge)?;
    protected.standin.kill_instance(scene.node.id()).await?;
    protected
        .wait_for_failure(APPLICATION, "DiskTooSmall")
        .await?;
    let problems = protected.error_lines(APPLICATION);
    let line = problems
        .iter()
        .find(|line| line["fields"]["kind"] == "DiskTooSmall")
        .context("the line is gone")?;
    let fields = &line["fields"];
    assert_eq!(fields["remedy"], ExitCode::DiskTooSmall.remedy());
    let reason = fields["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("MiB free"), "{line}");
    Ok(())
}
