//! `make chaos`: injects every fault of a catalogue, one at a time, and checks the promises after each.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use rekindle_tests::chaos::{self, Options};
use rekindle_tests::interruption::interruption;
use tracing_subscriber::EnvFilter;

/// Runs backups and restores again and again, injects one fault into each run, and checks the promises afterwards.
#[derive(Debug, Parser)]
#[command(name = "chaos", version)]
struct Arguments {
    /// The seed of the order of the faults and of their parameters.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of runs. Each fault is injected at least once, so there may be more.
    #[arg(long, default_value_t = 200)]
    runs: usize,
    /// Only the faults whose name contains this text; may be repeated.
    #[arg(long)]
    only: Vec<String>,
    /// The number of applications that run at the same time.
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
        lanes: arguments.lanes,
    };
    let begun = Instant::now();
    if !is_offline()? {
        print(
            "The network of this machine is reachable. To prove that recovery needs only AWS, run as root without a network: make chaos does.\n",
        )?;
    }
    let print_step = |line: &str| {
        let line = format!("{:>7.1} s  {line}\n", begun.elapsed().as_secs_f64());
        // If stdout is closed, the runs still go on; only the exit status is left.
        print(&line).ok();
    };
    let runs = async {
        let mut table = chaos::run(&options, &print_step).await?;
        if options.only.is_empty() {
            print_step("truncating every object at every percent, and flipping bits of it");
            table.add_cuts(chaos::cuts::cut(options.seed, 1, 8).await?);
        }
        anyhow::Ok(table)
    };
    let table = tokio::select! {
        table = runs => table?,
        stopped = interruption() => {
            stopped?;
            anyhow::bail!("interrupted; all processes were stopped and all data was deleted");
        }
    };
    print(&format!("{table}"))?;
    Ok(if table.held() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Returns whether the only network interface is the loopback interface.
fn is_offline() -> Result<bool> {
    let text =
        std::fs::read_to_string("/proc/self/net/dev").context("list the network interfaces")?;
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
        .context("write to stdout")
}
