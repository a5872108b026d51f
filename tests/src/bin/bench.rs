//! `make bench`: measures the release binaries and other programs for the same tasks, and prints one table.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use rekindle_tests::bench::report::{Findings, table};
use rekindle_tests::bench::site::Programs;
use rekindle_tests::bench::{self, Plan};
use rekindle_tests::interruption::unless_interrupted;
use rekindle_tests::output::print;
use tracing_subscriber::EnvFilter;

/// Measures backups, restores and the functions, as ratios to other programs in the same run.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Arguments {
    /// Only rows whose names contain this text, such as `backup of 800`. May be repeated.
    #[arg(long)]
    only: Vec<String>,
    /// The number of runs of each contender.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Also measure a registry of 4 GB.
    #[arg(long)]
    large: bool,
    /// The agent.
    #[arg(long, default_value = "target/node/rekindle-node")]
    agent: PathBuf,
    /// The directory of the functions' binaries.
    #[arg(long, default_value = "target/release")]
    functions: PathBuf,
    /// The Python virtual environment with the aws CLI and boto3.
    #[arg(long, default_value = ".venv")]
    python: PathBuf,
    /// The file for the measurements of every run, as JSON. The plot is written beside it.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
}

fn main() -> Result<()> {
    // Profiles group CPU time by thread name: this one separates the simulated S3 from Rekindle's programs.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("s3-stand-in")
        .enable_all()
        .build()
        .context("make a runtime")?;
    runtime.block_on(measure())
}

async fn measure() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into()))
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let print_step = move |step: &str| {
        let line = format!("{:>7.1} s  {step}\n", begun.elapsed().as_secs_f64());
        // If stdout is closed, the measurement still runs to its end.
        print(&line).ok();
    };
    let plan = Plan {
        only: arguments.only,
        runs: arguments.runs,
        large: arguments.large,
        log: Box::new(print_step),
    };
    let python = std::path::absolute(&arguments.python)?;
    let programs = Programs {
        agent: std::path::absolute(arguments.agent)?,
        functions: std::path::absolute(arguments.functions)?,
        python: python.clone(),
    };
    let mut findings = Findings::default();
    let measured = unless_interrupted(bench::run(&plan, programs, &mut findings)).await;
    print(&format!("\n{}", table(&findings)?))?;
    let json = serde_json::to_vec_pretty(&findings).context("write the measurements as JSON")?;
    let path = &arguments.json;
    std::fs::write(path, json).with_context(|| format!("write {}", path.display()))?;
    bench::draw(&python, path, &path.with_extension("svg")).await?;
    measured
}
