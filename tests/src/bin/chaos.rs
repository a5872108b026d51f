//! `make chaos`: injects every fault of a list, and checks the promises after each.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use rekindle_tests::chaos::run::damaged_objects::restore_damaged;
use rekindle_tests::chaos::run::{self, Options};
use rekindle_tests::interruption::unless_interrupted;
use rekindle_tests::output::print;
use tracing_subscriber::EnvFilter;

/// Repeats a scenario of backups and restores, and injects one fault at a time.
#[derive(Debug, Parser)]
#[command(name = "chaos", version)]
struct Arguments {
    /// The seed of the order of the faults, and of their parameters.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of runs. Together they inject each fault at least once.
    #[arg(long, default_value_t = 200)]
    runs: usize,
    /// Only the faults whose names contain this text. May be repeated.
    #[arg(long)]
    only: Vec<String>,
    /// The number of applications at the same time.
    #[arg(long, default_value_t = 4)]
    applications: usize,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into()))
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let options = Options {
        seed: arguments.seed,
        runs: arguments.runs,
        only: arguments.only,
        applications: arguments.applications,
    };
    let begun = Instant::now();
    let alone = is_alone()?;
    if !alone {
        print(
            "this machine has a network: only the stand-in's log shows that recovery needs no other service\n",
        )?;
    }
    let print_step = |line: &str| {
        let line = format!("{:>7.1} s  {line}\n", begun.elapsed().as_secs_f64());
        // If stdout is closed, the runs still continue to their end; only the exit status is left.
        print(&line).ok();
    };
    let finished = async {
        let mut table = run::run(&options, &print_step).await?;
        if options.only.is_empty() {
            print_step("every object truncated at every percent, and with flipped bits");
            table.add_damaged_objects(restore_damaged(options.seed, 1, 8).await?);
        }
        anyhow::Ok(table)
    };
    let table = unless_interrupted(finished).await?;
    print(&format!("{table}"))?;
    Ok(if table.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Returns whether the loopback interface is the only network interface.
fn is_alone() -> Result<bool> {
    let text = std::fs::read_to_string("/proc/self/net/dev").context("list the interfaces")?;
    let mut names = text
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next());
    Ok(names.all(|name| name.trim() == "lo"))
}
