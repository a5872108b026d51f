//! Configuration with many files, compared with a pipe of tar and the aws CLI.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::plan::{Plan, REKINDLE};
use super::sample::{Row, time};
use super::site::{BUCKET, Site, StoppedMachines};
use crate::nodes::machine::Node;

const FILES: usize = 20_000;
const FILES_OF_A_FOLDER: usize = 200;
const BYTES: usize = 25_000;
const TAR: &str = "tar piped to or from aws s3 cp";
const KEY: &str = "configuration/all.tar";

/// Measures the capture and the restore of 20,000 files with 500 MB. Rekindle's are a whole backup and a whole restore,
/// with a database without rows.
pub(super) async fn rows(site: &Site, plan: &Plan) -> Result<Vec<Row>> {
    let names = ["capture of", "restore of"];
    let [mut capture, mut restore] =
        names.map(|what| Row::new(&format!("{what} 20,000 files, 500 MB")));
    if !plan.wants(&capture.name) && !plan.wants(&restore.name) {
        return Ok(Vec::new());
    }
    plan.log("writing 20,000 files");
    let node = site.machine(&["/srv/app"]).await?;
    let folder = node.root().join("srv/app");
    tokio::task::spawn_blocking(move || fill(&folder))
        .await
        .context("write the files")??;
    let pack = format!(
        "tar -C {root} -cf - srv/app | aws s3 cp --only-show-errors - s3://{BUCKET}/{KEY}",
        root = node.root().display()
    );
    let (_, warm) = site.back_up(&node).await?;
    site.delete(&warm).await?;
    let mut stopped = StoppedMachines::new(false);
    for run in 1..=plan.runs {
        plan.log_run(&capture.name, run);
        let (sample, report) = site.back_up(&node).await?;
        capture.add(REKINDLE, sample);
        let mut sample = site.script(&node, &pack).await?.sample;
        sample.s3_bytes = Some(site.size(KEY)?);
        capture.add(TAR, sample);

        let target = site.machine(&["/srv/app"]).await?;
        let (sample, _) = site.restore(&target, &report).await?;
        ensure!(files_of(&target)? == FILES, "files are missing");
        restore.add(REKINDLE, sample);
        stopped.stop(target).await?;
        let target = site.machine(&["/srv/app"]).await?;
        // Synced to the disk, as Rekindle's restore is.
        let unpack = format!(
            "aws s3 cp --only-show-errors s3://{BUCKET}/{KEY} - | tar -C {root} -xf -\nsync -f {root}",
            root = target.root().display()
        );
        let mut sample = site.script(&target, &unpack).await?.sample;
        ensure!(files_of(&target)? == FILES, "files are missing");
        sample.s3_bytes = Some(site.size(KEY)?);
        restore.add(TAR, sample);
        stopped.stop(target).await?;
        site.delete(&report).await?;
        site.delete_below(KEY).await?;
    }
    for row in [&mut capture, &mut restore] {
        row.compare("time relative to tar and the aws CLI", TAR, 0.7, time);
    }
    if capture.misses() || restore.misses() {
        plan.log("profiling 20,000 files");
        let target = site.machine(&["/srv/app"]).await?;
        [capture.profile, restore.profile] = site.profiles(&node, &target).await?;
        stopped.stop(target).await?;
    }
    stopped.discard().await?;
    Ok(vec![capture, restore])
}

fn files_of(node: &Node) -> Result<usize> {
    let mut count = 0;
    for folder in std::fs::read_dir(node.root().join("srv/app"))? {
        count += std::fs::read_dir(folder?.path())?.count();
    }
    Ok(count)
}

/// Writes text that compresses about as well as settings and certificates.
fn fill(folder: &Path) -> Result<()> {
    let mut state: u64 = 1;
    for number in 0..FILES {
        let beside = folder.join(format!("{:04}", number / FILES_OF_A_FOLDER));
        std::fs::create_dir_all(&beside)?;
        let mut text = Vec::with_capacity(BYTES + 64);
        let mut line = 0;
        while text.len() < BYTES {
            // A linear congruential generator: the same files in every run.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            writeln!(text, "setting_{line}: {:016x}", state ^ (state >> 29))?;
            line += 1;
        }
        text.truncate(BYTES);
        let path = beside.join(format!("{number}.yml"));
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
