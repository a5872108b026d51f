//! Backups do not fill the disk of a node, however many it takes.

use std::path::Path;

use anyhow::{Context as _, Result};
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use rekindle_tests::nodes::machine::Node;
use time::{Duration, OffsetDateTime};

/// The number of files on a node's disk outside Postgres' data directory, and their bytes.
#[derive(Debug, Clone, Copy)]
struct Usage {
    files: u64,
    bytes: u64,
}

/// Adds the files and bytes below a directory to `sum`, except those of Postgres, which the agent does not own.
fn usage(directory: &Path, postgres: &Path, sum: &mut Usage) -> Result<()> {
    let entries = std::fs::read_dir(directory);
    for entry in entries.with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        if path == postgres {
            continue;
        }
        let metadata = std::fs::symlink_metadata(&path)?;
        sum.files += 1;
        if metadata.is_dir() {
            usage(&path, postgres, sum)?;
        } else {
            sum.bytes += metadata.len();
        }
    }
    Ok(())
}

fn usage_of(node: &Node) -> Result<Usage> {
    let root = node.root();
    let machine = root.parent().context("a root has a parent")?;
    let mut sum = Usage { files: 0, bytes: 0 };
    usage(machine, &root.join("var/lib/postgresql"), &mut sum)?;
    Ok(sum)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_backups_leave_bounded_disk_use_on_the_node() -> Result<()> {
    /// The limit for the records of recent operations: 64 files of at most 2,048 bytes.
    const MOST_RECORDS: Usage = Usage {
        files: 64,
        bytes: 64 * 2_048,
    };
    let protected = ProtectedGroups::start().await?;
    let node = protected.create_empty("hundred").await?;
    // A backup's id contains its tick's second, so every tick needs its own. Ticks of the last ten minutes are not too old.
    let first = OffsetDateTime::now_utc() - Duration::minutes(9);
    let mut measured = Vec::new();
    for number in 1..=100u32 {
        let at = first + Duration::seconds(5 * i64::from(number));
        protected.standin.bus().tick(at);
        protected
            .wait_for_backup("hundred", usize::try_from(number)? - 1)
            .await?;
        if [20, 80, 100].contains(&number) {
            protected.wait_until_idle().await?;
            measured.push(usage_of(&node)?);
        }
    }
    let [twenty, eighty, hundred] = measured[..] else {
        anyhow::bail!("{measured:?}");
    };
    assert!(
        hundred.files <= twenty.files + MOST_RECORDS.files,
        "{measured:?}"
    );
    assert!(
        hundred.bytes <= twenty.bytes + MOST_RECORDS.bytes,
        "{measured:?}"
    );
    // From the 64th record on, each new record replaces the oldest one.
    assert_eq!(hundred.files, eighty.files, "{measured:?}");
    assert_eq!(protected.backups("hundred")?.len(), 100);
    Ok(())
}
