//! The restore without Rekindle of docs/disaster-recovery.md, run as it is written.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use rekindle_tests::nodes::postgres::{Cluster, bin_directory};
use rekindle_tests::nodes::protected::Protected;
use rekindle_tests::nodes::registry;
use rekindle_tests::nodes::registry::{CONFIGURATION, MAIN_DATABASE, NOTARY_DATABASE};
use rekindle_tests::standin::s3::{ACCESS_KEY, SECRET_KEY};
use tokio::process::Command;

const CHAPTER: &str = "## Restoring by hand, without Rekindle";

/// Returns the shell lines of the chapter.
fn lines() -> Result<String> {
    let page = project().join("docs/disaster-recovery.md");
    let page = std::fs::read_to_string(page).context("read docs/disaster-recovery.md")?;
    let (_, chapter) = page
        .split_once(CHAPTER)
        .with_context(|| format!("docs/disaster-recovery.md has no chapter {CHAPTER}"))?;
    let (_, block) = chapter.split_once("```sh\n").context("it has no lines")?;
    let (block, _) = block.split_once("```").context("its lines have no end")?;
    Ok(block.to_owned())
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_lines_restore_a_backup_without_rekindle() -> Result<()> {
    let (protected, node) = Protected::one("library").await?;
    protected.back_up("library").await?;
    let original = node.cluster()?.connect(MAIN_DATABASE).await?;
    let rows = registry::rows(&original).await?;
    let files = registry::files(&node.root())?;
    // What comes later must not be in the restored state, and the newest backup is the one to restore.
    original.batch_execute("DELETE FROM registry.tag").await?;
    protected.back_up("library").await?;
    let rows_now = registry::rows(&original).await?;
    ensure!(rows != rows_now, "the second backup is to differ");

    let directory = tempfile::tempdir()?;
    let cluster = Cluster::create(&protected.world.directory().join("by-hand")).await?;
    cluster.start().await?;
    let world = &protected.world;
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
            ("AWS_ENDPOINT_URL", world.endpoint()),
            ("AWS_REGION", world.region()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("BUCKET", world.bucket()),
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

    // The databases are in the order of their names.
    let notary = node.cluster()?.connect(NOTARY_DATABASE).await?;
    let notary = registry::rows(&notary).await?;
    for (name, expected) in [("restored_0", notary), ("restored_1", rows_now)] {
        let restored = registry::rows(&cluster.connect(name).await?).await?;
        let different = registry::different_rows(&expected, &restored);
        assert!(different.is_empty(), "{name}: {different:?}");
    }
    for (number, path) in CONFIGURATION.iter().enumerate() {
        let there = directory.path().join(path);
        std::fs::create_dir_all(there.parent().context("a parent")?)?;
        std::fs::rename(
            directory.path().join(format!("configuration/{number}")),
            &there,
        )?;
    }
    assert_eq!(registry::files(directory.path())?, files);
    Ok(())
}
