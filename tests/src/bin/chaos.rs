//! `make chaos`: lets everything of a list go wrong, and holds the promises against what is left.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use rekindle_tests::chaos::run::damaged_objects::restore_damaged;
use rekindle_tests::chaos::run::{self, Options};
use rekindle_tests::interruption::interruption;
use tracing_subscriber::EnvFilter;

/// Plays the story of backups and restores again and again, and lets something go wrong each time.
#[derive(Debug, Parser)]
#[command(name = "chaos", version)]
struct Arguments {
    /// Decides about the order of the faults and about their parameters.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many runs share the list; each fault comes once at least.
    #[arg(long, default_value_t = 200)]
    runs: usize,
    /// Only the faults whose name contains this.
    #[arg(long)]
    only: Vec<String>,
    /// How many applications there are at a time.
    #[arg(long, default_value_t = 4)]
    lanes: usize,
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
        applications: arguments.lanes,
    };
    let begun = Instant::now();
    let alone = is_alone()?;
    if !alone {
        print(
            "this machine's network is not taken away: that nothing else is needed is seen from the stand-in only\n",
        )?;
    }
    let say = |line: &str| {
        let line = format!("{:>7.1} s  {line}\n", begun.elapsed().as_secs_f64());
        // Progress that nobody can read is no reason to stop.
        print(&line).ok();
    };
    let played = async {
        let mut table = run::run(&options, &say).await?;
        if options.only.is_empty() {
            say("every object cut off at every percent, and bits of it turned");
            table.add_damaged_objects(restore_damaged(options.seed, 1, 8).await?);
        }
        anyhow::Ok(table)
    };
    let table = tokio::select! {
        table = played => table?,
        stopped = interruption() => {
            stopped?;
            anyhow::bail!("interrupted; everything that ran was stopped and erased");
        }
    };
    print(&format!("{table}"))?;
    Ok(if table.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Tells whether there is no network but the machine's own.
fn is_alone() -> Result<bool> {
    let text = std::fs::read_to_string("/proc/self/net/dev").context("list the interfaces")?;
    let mut names = text
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next());
    Ok(names.all(|name| name.trim() == "lo"))
}

fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .context("print")
}
