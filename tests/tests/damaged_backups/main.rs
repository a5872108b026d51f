//! A damaged backup is never restored. Either the next older good one is restored, and that is reported, or the restore
//! fails and nothing changes.

mod archives;
mod damages;
mod preflight;
mod replacements;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use rekindle_tests::fixtures::protected_groups::{ProtectedGroups, WAIT_LIMIT};
use rekindle_tests::fixtures::registry::MAIN_DATABASE;
use rekindle_tests::fixtures::standalone;
use rekindle_tests::fixtures::standalone::AgentOutput;
use rekindle_tests::fixtures::standalone::DataSnapshot;
use rekindle_tests::nodes::machine::Node;
use rekindle_tests::standin::lambda::LogLine;
use rekindle_tests::wait::wait_for;
use shared::exit_code::ExitCode;
use shared::layout;
use shared::manifest::Manifest;
use shared::report::Report;

const APPLICATION: &str = "damaged";
/// The first dump of a backup.
const DUMP: &str = "postgres/0.dump.zst";

/// A group with two backups that differ.
struct Scenario {
    protected: ProtectedGroups,
    node: Arc<Node>,
    older: Manifest,
    /// The data of the node when the older backup was taken.
    older_data: DataSnapshot,
    newer: Manifest,
    newer_data: DataSnapshot,
}

impl Scenario {
    async fn start() -> Result<Self> {
        let (protected, node) = ProtectedGroups::with_filled_group(APPLICATION).await?;
        let older = protected.back_up(APPLICATION).await?;
        let older_data = standalone::snapshot(&node).await?;
        let main = node.cluster()?.connect(MAIN_DATABASE).await?;
        main.batch_execute("UPDATE registry.tag SET name = 'later ' || name")
            .await?;
        let newer = protected.back_up(APPLICATION).await?;
        let newer_data = standalone::snapshot(&node).await?;
        ensure!(older_data != newer_data, "both backups have the same data");
        Ok(Self {
            protected,
            node,
            older,
            older_data,
            newer,
            newer_data,
        })
    }

    /// Returns the key of a part of the newer backup.
    fn key(&self, name: &str) -> String {
        let index = &self.newer.index;
        layout::object(&index.application, &index.backup_id, &index.run_id, name)
    }

    /// Returns the key of the newer backup's manifest.
    fn manifest_key(&self) -> String {
        layout::manifest(&self.newer.index.application, &self.newer.index.backup_id)
    }

    fn bytes(&self, key: &str) -> Result<Vec<u8>> {
        let standin = &self.protected.standin;
        standin.s3().read(standin.bucket(), key)
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let standin = &self.protected.standin;
        standin.s3().replace(standin.bucket(), key, bytes)
    }

    /// Inverts one byte in the middle of the newer backup's first dump.
    fn flip_in_dump(&self) -> Result<()> {
        let standin = &self.protected.standin;
        let key = self.key(DUMP);
        standin.s3().flip_middle(standin.bucket(), &key)
    }

    /// Kills the node and waits until its replacement is in service.
    async fn replace_node(&mut self) -> Result<()> {
        self.node = self.protected.replace_lost(&self.node).await?;
        Ok(())
    }

    /// Waits for a log line with this message about the newer backup and the current node.
    async fn wait_for_line(&self, message: &str) -> Result<LogLine> {
        let what = format!("the line {message:?}");
        let id = self.newer.index.backup_id.to_string();
        wait_for(&what, WAIT_LIMIT, async || {
            let found = self.protected.log(0).into_iter().find(|line| {
                line.message == message
                    && line.is_about_instance(self.node.id())
                    && line.backup_id.as_ref() == Some(&id)
            });
            found.map(Some).ok_or("no such line")
        })
        .await
    }
}

/// The small files in the directory of S3: objects, and the records of their attributes.
type Saved = Vec<(PathBuf, Vec<u8>)>;

/// The limit in bytes of a small file: the agent's binary is larger, and no file of a backup is.
const SMALL: u64 = 1 << 20;

/// Reads all small files of S3.
fn save(scenario: &Scenario) -> Result<Saved> {
    let mut saved = Vec::new();
    collect(
        &scenario.protected.standin.directory().join("s3"),
        &mut saved,
    )?;
    Ok(saved)
}

fn collect(directory: &Path, saved: &mut Saved) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if path.is_dir() {
            collect(&path, saved)?;
        } else if entry.metadata()?.len() < SMALL {
            saved.push((path.clone(), std::fs::read(&path)?));
        }
    }
    Ok(())
}

/// Writes saved files back.
fn put_back(saved: &Saved) -> Result<()> {
    for (path, bytes) in saved {
        let parent = path.parent().context("a file has a directory")?;
        std::fs::create_dir_all(parent)?;
        std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Checks that the agent refused a restore with this exit code, and with `word` in its message.
fn assert_refused(answer: &AgentOutput, code: ExitCode, word: &str, case: &str) -> Result<()> {
    assert_eq!(answer.code, Some(code.code().into()), "{case}: {answer:?}");
    let Report::Failure(failure) = answer.report()? else {
        anyhow::bail!("{case}: no report of a failure: {answer:?}");
    };
    assert_eq!(failure.exit_code, code, "{case}");
    assert!(failure.message.contains(word), "{case}: {failure:?}");
    Ok(())
}
