//! A node that is backed up every few minutes for years must not fill its own disk.

use std::path::Path;

use anyhow::{Context as _, Result};
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use rekindle_tests::nodes::machine::Node;
use time::{Duration, OffsetDateTime};

/// What there is on a node's disk outside of Postgres.
#[derive(Debug, Clone, Copy)]
struct Usage {
    files: u64,
    bytes: u64,
}

/// Adds everything below the directory up; Postgres' own is not the agent's.
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
    /// What the records of the most recent operations may take: 64 files below 2 KB each.
    const MOST_RECORDS: Usage = Usage {
        files: 64,
        bytes: 64 * 2_048,
    };
    let protected = ProtectedGroups::start().await?;
    let node = protected.create_empty("hundred").await?;
    // A backup is named after its tick's second; ticks of the last minutes are none too late.
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
    // By then, each new record takes an old one's place.
    assert_eq!(hundred.files, eighty.files, "{measured:?}");
    assert_eq!(protected.backups("hundred")?.len(), 100);
    Ok(())
}
