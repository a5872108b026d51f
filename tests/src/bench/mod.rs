//! `make bench`: the performance of the shipped programs, as ratios to other programs in the same run. Contenders take
//! turns, so that other load on the machine affects all of them.

mod configuration;
mod databases;
mod failover;
mod functions;
mod network;
pub mod plan;
mod process;
mod profile;
pub mod report;
pub mod sample;
mod scale;
pub mod site;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

pub use self::plan::Plan;
use self::report::Findings;
use self::site::{Programs, Site};
use crate::nodes::postgres;

/// Measures the planned rows. Each row is added to the findings as soon as it is complete, so that a later failure does not
/// lose it.
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

/// Returns a description of the machine.
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

/// Draws the plot of a run's JSON with the Python of this virtual environment.
pub async fn draw(python: &Path, json: &Path, svg: &Path) -> Result<()> {
    let script = process::python_script("plot.py");
    let paths = [&python.join("bin/python3"), &script, json, svg];
    let line = paths.map(|path| path.display().to_string()).to_vec();
    let environment = BTreeMap::new();
    process::run(process::Program { line, environment }).await?;
    Ok(())
}
