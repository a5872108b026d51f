//! `make demo`: the story on this machine, told step by step, with a table at the end.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use rekindle_tests::demo as story;
use rekindle_tests::demo::containers::ContainerOutcome;
use rekindle_tests::demo::{Outcome, Replacement};
use rekindle_tests::fixtures::registry::Seed;
use rekindle_tests::interruption::interruption;
use rekindle_tests::nodes::engine;
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
    /// What the nodes run: Postgres as a process, or Postgres and a real registry in containers.
    #[arg(long, value_enum, default_value = "process")]
    node: Kind,
    /// With `--node docker`: how often the node is replaced on purpose.
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
    let say = |step: &str| {
        let line = format!("{:>7.1} s  {step}\n", begun.elapsed().as_secs_f64());
        // Progress that nobody can read is no reason to stop.
        print(&line).ok();
    };
    let seed = Seed {
        rows: arguments.rows,
        seed: arguments.seed,
    };
    let playing = async {
        match arguments.node {
            Kind::Process => {
                let outcome = story::play(seed, &say).await?;
                anyhow::Ok((table(&outcome)?, outcome.is_faithful()))
            }
            Kind::Docker => {
                if let Some(why) = engine::missing().await? {
                    anyhow::bail!("--node docker needs a Docker Engine: {why}");
                }
                let outcome = story::containers::play(seed, arguments.replacements, &say).await?;
                Ok((container_table(&outcome)?, outcome.is_faithful()))
            }
        }
    };
    let (table, faithful) = tokio::select! {
        played = playing => played?,
        stopped = interruption() => {
            stopped?;
            anyhow::bail!("interrupted; everything that ran was stopped and erased");
        }
    };
    print(&table)?;
    Ok(if faithful {
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
    let mut text = side_by_side(&[
        ("unplanned loss", unplanned),
        ("planned replacement", planned),
    ])?;
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
    writeln!(text, "{}", verdict(outcome.is_faithful()))?;
    Ok(text)
}

/// Tells what happened when, and then everything in one column for each replacement.
fn side_by_side(replacements: &[(&str, &Replacement)]) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for (title, replacement) in replacements {
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
    write!(text, "\n{:<44}", "")?;
    for (title, _) in replacements {
        write!(text, "{title:>22}")?;
    }
    writeln!(text)?;
    for (what, cell) in ROWS {
        write!(text, "{what:<44}")?;
        for (_, replacement) in replacements {
            write!(text, "{:>22}", cell(replacement))?;
        }
        writeln!(text)?;
    }
    Ok(text)
}

fn container_table(outcome: &ContainerOutcome) -> Result<String, std::fmt::Error> {
    let columns: Vec<(&str, &Replacement)> = outcome
        .replacements
        .iter()
        .map(|(kind, replacement)| (kind.as_str(), replacement))
        .collect();
    let mut text = String::new();
    // As many columns as a terminal is wide.
    for columns in columns.chunks(3) {
        text += &side_by_side(columns)?;
    }
    let (saved, bytes) = outcome.saved_images;
    writeln!(
        text,
        "\n{} images were pulled by their digests {} times, each before its node was in service: by {} replacements, \
         whose engines had no image.\n{saved} image of the application itself is in S3, with {bytes} bytes.",
        outcome.images,
        outcome.pulled,
        outcome.replacements.len()
    )?;
    for problem in &outcome.noticed {
        writeln!(text, "NOTICED: {problem}")?;
    }
    writeln!(text, "{}", verdict(outcome.is_faithful()))?;
    Ok(text)
}

fn verdict(faithful: bool) -> &'static str {
    if faithful {
        "Nothing differs."
    } else {
        "SOMETHING DIFFERS."
    }
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).context("print")?;
    out.flush().context("print")
}
