//! `make bench`: how fast the shipped programs are, as ratios against others in the same run. Contenders take turns, so
//! that a machine which is busy with something else is so for all of them.

mod configuration;
mod databases;
mod failover;
mod functions;
mod network;
mod process;
mod profile;
pub mod report;
pub mod sample;
mod scale;
pub mod site;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use self::report::Findings;
use self::site::{Programs, Site};
use crate::nodes::postgres;

/// The contender that is ours.
const REKINDLE: &str = "rekindle";
/// The system that Rekindle replaces: cron and shell scripts around `pg_dump`, `pg_restore` and the aws CLI.
const ORIGINAL: &str = "the original's script";

/// What to measure, how often, and who is told of it.
pub struct Plan {
    /// Only rows whose names hold one of these; all where there is none.
    pub only: Vec<String>,
    /// Runs of each contender.
    pub runs: usize,
    /// Whether 4 GB are measured, too.
    pub large: bool,
    /// Gets a line for each step.
    pub say: Box<dyn Fn(&str) + Send + Sync>,
}

impl Plan {
    fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| row.contains(part))
    }

    fn say(&self, step: &str) {
        (self.say)(step);
    }

    fn say_run(&self, row: &str, run: usize) {
        self.say(&format!("{row}, run {run} of {}", self.runs));
    }
}

/// Measures everything that is planned, and adds each row to the findings as soon as it is complete: what is found is not
/// lost to a later row that fails.
pub async fn run(plan: &Plan, programs: Programs, findings: &mut Findings) -> Result<()> {
    programs.check()?;
    findings.machine = machine();
    let site = Site::prepare(programs).await?;
    let rows = &mut findings.rows;
    for megabytes in [40, 800] {
        rows.extend(databases::rows(&site, plan, megabytes).await?);
    }
    if plan.large {
        rows.extend(databases::rows(&site, plan, 4_000).await?);
    }
    rows.extend(configuration::rows(&site, plan).await?);
    rows.extend(network::rows(&site, plan).await?);
    rows.extend(functions::rows(&site.programs, plan).await?);
    rows.extend(failover::rows(&site.programs, plan).await?);
    rows.extend(scale::ticks(&site.programs, plan).await?);
    rows.extend(scale::newest(&site, plan).await?);
    Ok(())
}

/// Describes where this runs.
fn machine() -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let server = postgres::bin_directory().map_or_else(
        |_| String::new(),
        |directory| directory.display().to_string(),
    );
    let processor = field(&read("/proc/cpuinfo"), "model name");
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    vec![
        format!("{cores} cores of {processor}, {memory} of memory; load before: {load}"),
        format!(
            "Postgres of {server}; S3 stores in {}",
            site::store().display()
        ),
    ]
}

/// Draws how the figures grow, from the JSON of a run, by the Python in this virtual environment.
pub async fn draw(python: &Path, json: &Path, svg: &Path) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bench/plot.py");
    let paths = [&python.join("bin/python3"), &script, json, svg];
    let line = paths.map(|path| path.display().to_string()).to_vec();
    let environment = BTreeMap::new();
    process::run(process::Program { line, environment }).await?;
    Ok(())
}
