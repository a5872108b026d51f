//! `make demo`: the story on this machine, told step by step, with a table at the end.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use rekindle_tests::interruption::interruption;
use rekindle_tests::registry::Seed;
use rekindle_tests::story::{self, Outcome, Replacement};
use tracing_subscriber::EnvFilter;

/// Backs a registry up, loses its node without warning, restores it before it is in service, and replaces it
/// on purpose under load. Exits with 1 when anything differs.
#[derive(Debug, Parser)]
#[command(name = "demo", version)]
struct Arguments {
    /// Rows of the registry, at least.
    #[arg(long, default_value_t = 100_000)]
    rows: u64,
    /// What its data are made from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into()))
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let say = |step: &str| {
        let line = format!("{:>7.1} s  {step}\n", begun.elapsed().as_secs_f64());
        // Progress that nobody can read is no reason to stop.
        print(&line).ok();
    };
    let seed = Seed {
        rows: arguments.rows,
        seed: arguments.seed,
    };
    let outcome = tokio::select! {
        played = story::play(seed, &say) => played?,
        stopped = interruption() => {
            stopped?;
            anyhow::bail!("interrupted; everything that ran was stopped and erased");
        }
    };
    print(&table(&outcome)?)?;
    Ok(if outcome.is_faithful() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What the table says of a replacement in one row.
type Cell = fn(&Replacement) -> String;

const ROWS: [(&str, Cell); 7] = [
    ("rows different, of", |one| {
        format!(
            "{} of {}",
            one.different_rows.values().sum::<usize>(),
            one.rows
        )
    }),
    ("files different, of", |one| {
        format!("{} of {}", one.different_files.len(), one.files)
    }),
    ("data lost (RPO)", |one| seconds(one.data_loss)),
    ("out of service (RTO)", |one| seconds(one.outage)),
    ("  of it the node's restore", |one| seconds(one.node_work)),
    ("  of it orchestration", |one| seconds(one.orchestration)),
    ("  the rest: AWS (shortened), final backup", |one| {
        seconds(one.outage.saturating_sub(one.node_work + one.orchestration))
    }),
];

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

fn table(outcome: &Outcome) -> Result<String, std::fmt::Error> {
    let (unplanned, planned) = (&outcome.unplanned, &outcome.planned);
    let mut text = String::new();
    for (title, replacement) in [
        ("unplanned loss", unplanned),
        ("planned replacement", planned),
    ] {
        writeln!(text, "\n{title}")?;
        for (what, at) in &replacement.timeline {
            writeln!(text, "  {:>7.2} s  {what}", at.as_secs_f64())?;
        }
        for (table, count) in &replacement.different_rows {
            writeln!(text, "  DIFFERENT: {count} rows of {table}")?;
        }
        for file in &replacement.different_files {
            writeln!(text, "  DIFFERENT: {file}")?;
        }
    }
    writeln!(
        text,
        "\n{:<44}{:>22}{:>22}",
        "", "unplanned loss", "planned replacement"
    )?;
    for (what, cell) in ROWS {
        writeln!(
            text,
            "{what:<44}{:>22}{:>22}",
            cell(unplanned),
            cell(planned)
        )?;
    }
    writeln!(
        text,
        "\n{} events were acknowledged under load during the planned replacement, {} of them were lost.\n\
         The last backup has {} bytes in S3 and took {:.2} s, checks included. The agent's peak memory was {} MiB.",
        outcome.acknowledged,
        outcome.lost,
        outcome.backup_bytes,
        outcome.backup_seconds,
        outcome.peak_memory_kib / 1024,
    )?;
    let verdict = if outcome.is_faithful() {
        "Nothing differs."
    } else {
        "SOMETHING DIFFERS."
    };
    writeln!(text, "{verdict}")?;
    Ok(text)
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).context("print")?;
    out.flush().context("print")
}
