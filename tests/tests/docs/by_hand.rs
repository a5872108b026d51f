//! The restore without Rekindle of docs/disaster-recovery.md, run exactly as it is written.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use rekindle_tests::fixtures::registry;
use rekindle_tests::fixtures::registry::{CONFIGURATION, MAIN_DATABASE, NOTARY_DATABASE};
use rekindle_tests::nodes::postgres::{Cluster, bin_directory};
use rekindle_tests::standin::s3::{ACCESS_KEY, SECRET_KEY};
use tokio::process::Command;

use super::{project, read};

const PAGE: &str = "docs/disaster-recovery.md";
const CHAPTER: &str = "## Restoring by hand, without Rekindle";

/// Returns the shell lines of the chapter.
fn lines() -> Result<String> {
    let page = read(PAGE)?;
    let (_, chapter) = page
        .split_once(CHAPTER)
        .with_context(|| format!("{PAGE} has no chapter {CHAPTER}"))?;
    let (_, block) = chapter
        .split_once("```sh\n")
        .context("the chapter has no shell lines")?;
    let (block, _) = block
        .split_once("```")
        .context("the shell lines have no end")?;
    Ok(block.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_lines_restore_a_backup_without_rekindle() -> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group("library").await?;
    protected.back_up("library").await?;
    let original = node.cluster()?.connect(MAIN_DATABASE).await?;
    let rows = registry::rows(&original).await?;
    let files = registry::files(&node.root())?;
    // The second backup differs from the first. The lines must restore the second, which is the newest.
    original.batch_execute("DELETE FROM registry.tag").await?;
    protected.back_up("library").await?;
    let rows_now = registry::rows(&original).await?;
    ensure!(rows != rows_now, "both backups have the same rows");

    let directory = tempfile::tempdir()?;
    let cluster = Cluster::create(&protected.standin.directory().join("by-hand")).await?;
    cluster.start().await?;
    let standin = &protected.standin;
    let path = format!(
        "{}:{}:{}",
        project().join(".venv/bin").display(),
        bin_directory()?.display(),
        "/usr/local/bin:/usr/bin:/bin"
    );
    let output = Command::new("bash")
        .args(["-eu", "-o", "pipefail", "-c", &lines()?])
        .current_dir(directory.path())
        .env_clear()
        .envs([
            ("PATH", path.as_str()),
            ("HOME", "/nonexistent"),
            ("AWS_ENDPOINT_URL", standin.endpoint()),
            ("AWS_REGION", standin.region()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("BUCKET", standin.bucket()),
            ("APPLICATION", "library"),
            ("PGHOST", "127.0.0.1"),
            ("PGPORT", &cluster.port().to_string()),
            ("PGUSER", "postgres"),
        ])
        .stdin(Stdio::null())
        .output()
        .await
        .context("run the lines of docs/disaster-recovery.md")?;
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );

    // Dumps are numbered in the order of the databases' names.
    let notary = node.cluster()?.connect(NOTARY_DATABASE).await?;
    let notary = registry::rows(&notary).await?;
    for (name, expected) in [("restored_0", notary), ("restored_1", rows_now)] {
        let restored = registry::rows(&cluster.connect(name).await?).await?;
        let different = registry::different_rows(&expected, &restored);
        assert!(different.is_empty(), "{name}: {different:?}");
    }
    for (number, path) in CONFIGURATION.iter().enumerate() {
        let there = directory.path().join(path);
        std::fs::create_dir_all(there.parent().context("the path has no parent")?)?;
        std::fs::rename(
            directory.path().join(format!("configuration/{number}")),
            &there,
        )?;
    }
    assert_eq!(registry::files(directory.path())?, files);
    Ok(())
}
