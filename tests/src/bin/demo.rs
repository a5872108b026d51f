//! `make demo`: runs the demonstration on this machine, prints each step, and a table at the end.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use rekindle_tests::demo::{containers, process, table};
use rekindle_tests::fixtures::registry::Seed;
use rekindle_tests::interruption::unless_interrupted;
use rekindle_tests::nodes::engine;
use rekindle_tests::output::print;
use tracing_subscriber::EnvFilter;

/// Backs up a registry, kills its node, and restores the replacement before it is in service; then replaces that one on
/// purpose under write load. Compares every row and file. Exits with 1 if anything was lost or changed.
#[derive(Debug, Parser)]
#[command(name = "demo", version)]
struct Arguments {
    /// The minimum number of rows in the registry.
    #[arg(long, default_value_t = 100_000)]
    rows: u64,
    /// The seed of the generated data.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How the nodes run: Postgres as a process, or Postgres and a real registry in containers.
    #[arg(long, value_enum, default_value = "process")]
    node: Kind,
    /// With `--node docker`: the number of planned replacements.
    #[arg(long, default_value_t = 1)]
    replacements: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Process,
    Docker,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into()))
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let print_step = |step: &str| {
        let line = format!("{:>7.1} s  {step}\n", begun.elapsed().as_secs_f64());
        // If stdout is closed, the demonstration still runs to its end; only the exit status is left.
        print(&line).ok();
    };
    let seed = Seed {
        rows: arguments.rows,
        seed: arguments.seed,
    };
    let demo = async {
        match arguments.node {
            Kind::Process => {
                let result = process::play(seed, &print_step).await?;
                anyhow::Ok((table::of_processes(&result), result.is_faithful()))
            }
            Kind::Docker => {
                if let Some(reason) = engine::missing().await? {
                    anyhow::bail!("cannot run --node docker without a Docker Engine: {reason}");
                }
                let result = containers::play(seed, arguments.replacements, &print_step).await?;
                Ok((table::of_containers(&result), result.is_faithful()))
            }
        }
    };
    let (table, faithful) = unless_interrupted(demo).await?;
    print(&table)?;
    Ok(if faithful {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
