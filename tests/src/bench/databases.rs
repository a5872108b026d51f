//! Backups and restores of a registry, compared with the system that Rekindle replaces and with Postgres' own tools.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use rekindle_node::postgres::session;
use rekindle_node::restore::load;

use super::plan::{ORIGINAL, Plan, REKINDLE};
use super::profile;
use super::sample::{Row, Sample, memory, stored, time, written};
use super::site::{APPLICATION, BUCKET, Site, StoppedMachines};
use crate::fixtures::registry::MAIN_DATABASE;
use crate::nodes::machine::Node;

const MEGA: u64 = 1_000_000;

/// The most bytes of the agent's record of an operation on disk: one or two pages for each of its files.
const MAX_RECORD_BYTES: f64 = 131_072.0;

/// Measures backups and restores of a registry of about this number of MB.
pub(super) async fn rows(site: &Site, plan: &Plan, megabytes: u64) -> Result<Vec<Row>> {
    let names = ["backup of", "restore of", "swap outage at"];
    let [backup, restore, swap] = names.map(|name| format!("{name} {megabytes} MB"));
    let (backed_up, restored) = (
        plan.wants(&backup),
        plan.wants(&restore) || plan.wants(&swap),
    );
    let mut rows = Vec::new();
    if !backed_up && !restored {
        return Ok(rows);
    }
    let large = megabytes > 100;
    plan.log(&format!("filling a registry of {megabytes} MB"));
    let node = site.registry(megabytes * MEGA).await?;
    let bytes = database_bytes(&node).await?;
    plan.log(&format!("it has {} MB", bytes / MEGA));
    let amount = u32::try_from(bytes / MEGA).map(f64::from)?;
    if backed_up {
        rows.push(backups(site, plan, &node, Row::new(&backup), large).await?);
    }
    if restored {
        let measured = [restore, swap].map(|name| Row::new(&name));
        rows.extend(restores(site, plan, &node, measured, large).await?);
    }
    for row in &mut rows {
        row.set_amount(amount, "MB of database");
    }
    Ok(rows)
}

async fn database_bytes(node: &Node) -> Result<u64> {
    let main = node.cluster()?.connect(MAIN_DATABASE).await?;
    let row = main
        .query_one("SELECT pg_database_size(current_database())", &[])
        .await?;
    Ok(u64::try_from(row.get::<_, i64>(0))?)
}

/// A lower bound of a verified backup's time.
const PIPE: &str = "pg_dump -Fc -Z0 | zstd -1 -T0, discarded";
/// Postgres' fastest dump, which stores several times as much.
const FAR_FLOOR: &str = "pg_dump -Fd -j<cores> -Z0 to memory (far floor)";

async fn backups(
    site: &Site,
    plan: &Plan,
    node: &Arc<Node>,
    mut row: Row,
    large: bool,
) -> Result<Row> {
    let file = site.disk().join("pg-backup.bck");
    let original = format!(
        "pg_dump --format=t -f {file} {MAIN_DATABASE}\n\
         aws s3 cp --only-show-errors {file} s3://{BUCKET}/original/\nrm -f {file}",
        file = file.display()
    );
    let pipe = format!("pg_dump -Fc -Z0 {MAIN_DATABASE} | zstd -q -1 -T0 -c > /dev/null");
    let folder = site.memory().join("dump");
    let cores = std::thread::available_parallelism()?;
    let far_floor = format!(
        "pg_dump -Fd -j{cores} -Z0 -f {} {MAIN_DATABASE}",
        folder.display()
    );
    // The first backup adopts the node, and fills the caches.
    let (_, warm) = site.back_up(node).await?;
    site.delete(&warm).await?;
    for run in 1..=plan.runs {
        plan.log_run(&row.name, run);
        let (sample, report) = site.back_up(node).await?;
        row.add(REKINDLE, sample);
        site.delete(&report).await?;

        let mut sample = site.script(node, &original).await?.sample;
        sample.s3_bytes = Some(site.size("original/pg-backup.bck")?);
        row.add(ORIGINAL, sample);
        site.delete_below("original/").await?;

        row.add(PIPE, site.script(node, &pipe).await?.sample);
        if large {
            row.add(FAR_FLOOR, site.script(node, &far_floor).await?.sample);
            std::fs::remove_dir_all(&folder)?;
        }
    }
    if large {
        row.compare("time relative to the original", ORIGINAL, 0.6, time);
        row.compare("time relative to the zstd pipe", PIPE, 1.3, time);
        row.compare("bytes relative to the original", ORIGINAL, 0.3, stored);
    } else {
        row.compare("time relative to the original", ORIGINAL, 1.0, time);
    }
    row.at_most(
        "bytes on disk (the record of the operation)",
        MAX_RECORD_BYTES,
        written,
    );
    row.at_most("MiB of memory, tools included", 128.0, memory);
    if row.misses() {
        plan.log(&format!("profiling {}", row.name));
        let done;
        (row.profile, done) = profile::of(site.back_up(node)).await?;
        if let Some((_, report)) = done {
            site.delete(&report).await?;
        }
    }
    Ok(row)
}

/// A lower bound of a restore's time.
const FLOOR: &str = "pg_restore -j<cores>, ANALYZE (floor)";

/// The archives and scripts that the contenders of a restore use.
struct Contenders {
    directory: PathBuf,
    /// The rows of the largest table.
    expected: i64,
    fetched: PathBuf,
    original: String,
    again: String,
    prepare_floor: String,
    floor: String,
}

impl Contenders {
    /// Writes the archives of a node's database.
    async fn prepare(site: &Site, node: &Node) -> Result<Self> {
        let directory = site.disk().join("archives");
        std::fs::create_dir_all(&directory)?;
        let archive = directory.join("floor.dump");
        let globals = directory.join("globals.sql");
        // Piped, like Rekindle's archives.
        let prepare = format!(
            "pg_dump -Fc -Z0 {MAIN_DATABASE} | cat > {archive}\npg_dumpall --globals-only > {globals}\n\
             pg_dump --format=t -f {tar} {MAIN_DATABASE}\naws s3 cp --only-show-errors {tar} s3://{BUCKET}/original/\n\
             rm -f {tar}",
            archive = archive.display(),
            globals = globals.display(),
            tar = directory.join("pg-backup.bck").display(),
        );
        site.script(node, &prepare).await?;
        let fetched = directory.join("fetched.bck");
        // The original's script, whose pg_restore always reports missing roles.
        let original = format!(
            "aws s3 cp --only-show-errors s3://{BUCKET}/original/pg-backup.bck {fetched}\n\
             pg_restore -c -d {MAIN_DATABASE} {fetched} || true",
            fetched = fetched.display()
        );
        // A second time, over the existing database: an in-place replacement.
        let again = format!(
            "pg_restore --clean -d {MAIN_DATABASE} {} || true",
            fetched.display()
        );
        let prepare_floor = format!(
            "psql -qX -d {MAIN_DATABASE} -f {} >/dev/null 2>&1\ncreatedb -T template0 restored",
            globals.display()
        );
        let cores = std::thread::available_parallelism()?;
        let settings = session::restore_options(server_version(node).await?, load::sessions());
        let floor = format!(
            "export PGOPTIONS='{settings}'\npg_restore -j{cores} --exit-on-error -d restored {}\n\
             psql -qX -d restored -c ANALYZE",
            archive.display()
        );
        Ok(Self {
            directory,
            expected: rows_of(node, MAIN_DATABASE).await?,
            fetched,
            original,
            again,
            prepare_floor,
            floor,
        })
    }

    /// Returns an error if rows of a restored database are missing.
    async fn check(&self, target: &Node, database: &str) -> Result<()> {
        let rows = rows_of(target, database).await?;
        ensure!(rows == self.expected, "rows are missing");
        Ok(())
    }

    /// Restores with the original's script, twice.
    async fn original(&self, site: &Site, target: &Node) -> Result<[Sample; 2]> {
        let mut sample = site.script(target, &self.original).await?.sample;
        sample.s3_bytes = Some(site.size("original/pg-backup.bck")?);
        self.check(target, MAIN_DATABASE).await?;
        let again = site.script(target, &self.again).await?.sample;
        std::fs::remove_file(&self.fetched)?;
        Ok([sample, again])
    }

    /// Restores with Postgres' fastest restore.
    async fn floor(&self, site: &Site, target: &Node) -> Result<Sample> {
        site.script(target, &self.prepare_floor).await?;
        let sample = site.script(target, &self.floor).await?.sample;
        self.check(target, "restored").await?;
        Ok(sample)
    }
}

async fn restores(
    site: &Site,
    plan: &Plan,
    node: &Arc<Node>,
    [mut row, mut swap]: [Row; 2],
    large: bool,
) -> Result<Vec<Row>> {
    let (_, backup) = site.back_up(node).await?;
    let contenders = Contenders::prepare(site, node).await?;
    let mut stopped = StoppedMachines::new(large);
    for run in 1..=plan.runs {
        plan.log_run(&row.name, run);
        let target = site.machine(&[]).await?;
        let (sample, report) = site.restore(&target, &backup).await?;
        contenders.check(&target, MAIN_DATABASE).await?;
        row.add(REKINDLE, sample);
        swap.add(
            REKINDLE,
            Sample {
                seconds: report.swap_seconds,
                ..Sample::default()
            },
        );
        stopped.stop(target).await?;

        let target = site.machine(&[]).await?;
        let [first, again] = contenders.original(site, &target).await?;
        row.add(ORIGINAL, first);
        swap.add("pg_restore --clean in place", again);
        stopped.stop(target).await?;

        let target = site.machine(&[]).await?;
        row.add(FLOOR, contenders.floor(site, &target).await?);
        stopped.stop(target).await?;
    }
    if large {
        row.compare("time relative to the original", ORIGINAL, 0.7, time);
        row.compare("time relative to the floor", FLOOR, 1.25, time);
    } else {
        row.compare("time relative to the original", ORIGINAL, 1.0, time);
    }
    swap.at_most("seconds without service", 0.5, time);
    if row.misses() {
        plan.log(&format!("profiling {}", row.name));
        let target = site.machine(&[]).await?;
        (row.profile, _) = profile::of(site.restore(&target, &backup)).await?;
        stopped.stop(target).await?;
    }
    stopped.discard().await?;
    site.delete(&backup).await?;
    site.delete_below("original/").await?;
    std::fs::remove_dir_all(&contenders.directory)?;
    Ok(vec![row, swap])
}

/// Returns the server's version as a number, such as 150018.
async fn server_version(node: &Node) -> Result<u32> {
    let client = node.cluster()?.connect(MAIN_DATABASE).await?;
    let row = client.query_one("SHOW server_version_num", &[]).await?;
    let version: String = row.get(0);
    version.parse().context("read the server's version")
}

/// Counts the rows of the largest table.
async fn rows_of(node: &Node, database: &str) -> Result<i64> {
    let client = node.cluster()?.connect(database).await?;
    let row = client
        .query_one("SELECT count(*) FROM registry.tag", &[])
        .await
        .with_context(|| format!("count the rows of {APPLICATION}"))?;
    Ok(row.get(0))
}
