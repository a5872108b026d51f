//! Good backups that do not fit the node. They are refused by the preflight checks, and no older one is restored instead.

use anyhow::{Context as _, Result};
use rekindle_tests::fixtures::standalone::{StandaloneNode, launch_operation};
use rekindle_tests::fixtures::tampering;
use shared::command::Candidate;
use shared::exit_code::ExitCode;
use shared::layout;
use shared::manifest::Manifest;

use super::{APPLICATION, Scenario, assert_refused};

/// Returns the newer backup with a database that is too large for every disk.
fn forge_huge(scenario: &Scenario) -> Result<Manifest> {
    tampering::forge(&scenario.protected, &scenario.newer, |index, _| {
        index.databases[0].database_bytes = 1 << 60;
        Ok(())
    })
}

/// Returns candidates that no node accepts: each with the exit code, and a part of the message.
fn unfit_candidates(scenario: &Scenario) -> Result<[(Candidate, ExitCode, &'static str); 6]> {
    let (protected, newer) = (&scenario.protected, &scenario.newer);
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
    let in_other_locale = tampering::forge(protected, newer, |_, parts| {
        let part = parts.get_mut(layout::CONTENTS).context("no contents")?;
        tampering::edit_contents(part, |contents| {
            contents["databases"][0]["properties"]["collate"] = "xx_YY.utf8".into();
        })
    })?;
    let foreign = tampering::forge(protected, newer, |index, _| {
        index.application = "another".parse()?;
        Ok(())
    })?;
    let foreign = Candidate {
        // The node reads only below the prefix of its own application.
        index_sha256: foreign.index_object.sha256.clone(),
        ..newer.candidate()
    };
    let from_the_future = tampering::forge(protected, newer, |index, _| {
        index.schema_version = 2;
        Ok(())
    })?;
    Ok([
        (
            too_new.candidate(),
            ExitCode::ServerTooOld,
            "backup of PostgreSQL 99",
        ),
        (
            extended.candidate(),
            ExitCode::ExtensionMissing,
            "no_such_extension 1.0",
        ),
        (
            in_other_locale.candidate(),
            ExitCode::LocaleMissing,
            "xx_YY.utf8",
        ),
        (
            forge_huge(scenario)?.candidate(),
            ExitCode::DiskTooSmall,
            "MiB free",
        ),
        (foreign, ExitCode::Verification, "index.json"),
        (
            from_the_future.candidate(),
            ExitCode::NoUsableBackup,
            "schema",
        ),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_does_not_fit_the_node_is_refused_before_anything_changes() -> Result<()> {
    let scenario = Scenario::start().await?;
    let standalone = StandaloneNode::with_data(&scenario.protected, APPLICATION).await?;
    let before = standalone.snapshot().await?;
    let protected = &scenario.protected;

    for (candidate, code, word) in unfit_candidates(&scenario)? {
        // An older backup would fit, but must not be restored: it would lose data that still exists. Only a damaged backup
        // is skipped.
        let older = (code != ExitCode::Verification).then(|| scenario.older.candidate());
        let candidates: Vec<Candidate> = std::iter::once(candidate).chain(older).collect();
        let operation = launch_operation(code.word());
        let answer = standalone.restore(&operation, &candidates).await?;
        assert_refused(&answer, code, word, code.word())?;
        assert_eq!(
            standalone.snapshot().await?,
            before,
            "{code}: {}",
            answer.log
        );
        assert!(!standalone.node.marker().exists(), "{code}");
    }

    // The function logs and counts the same failure as the agent, with the remedy.
    tampering::commit(protected, &forge_huge(&scenario)?)?;
    protected.standin.kill_instance(scenario.node.id()).await?;
    let line = protected
        .wait_for_failure(APPLICATION, "DiskTooSmall")
        .await?;
    assert!(line.contains("MiB free"), "{line}");
    Ok(())
}
