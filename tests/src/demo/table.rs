//! The tables that `make demo` prints at the end: the timelines, and one column for each replacement.

use std::fmt::{Result, Write as _};
use std::time::Duration;

use super::containers::ContainerResult;
use super::process::DemoResult;
use super::replacement::Replacement;

/// Returns one cell of a replacement's column.
type Cell = fn(&Replacement) -> String;

const ROWS: [(&str, Cell); 7] = [
    ("different rows", |one| {
        let different: usize = one.different_rows.values().sum();
        format!("{different} of {}", one.rows)
    }),
    ("different files", |one| {
        format!("{} of {}", one.different_files.len(), one.files)
    }),
    ("data lost (RPO)", |one| seconds(one.data_loss)),
    ("time out of service (RTO)", |one| seconds(one.outage)),
    ("  restore on the node", |one| seconds(one.node_work)),
    ("  Rekindle's functions", |one| seconds(one.orchestration)),
    ("  AWS (accelerated), and final backup", |one| {
        seconds(one.outage.saturating_sub(one.node_work + one.orchestration))
    }),
];

/// The number of columns that fit into a terminal.
const COLUMNS: usize = 3;

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// Returns the table of the demonstration with Postgres as a process.
pub fn of_processes(result: &DemoResult) -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    write_processes(&mut text, result).ok();
    text
}

/// Returns the table of the demonstration in containers.
pub fn of_containers(result: &ContainerResult) -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    write_containers(&mut text, result).ok();
    text
}

fn write_processes(text: &mut String, result: &DemoResult) -> Result {
    let columns = [
        ("unplanned loss", &result.unplanned),
        ("planned replacement", &result.planned),
    ];
    write_side_by_side(text, &columns)?;
    writeln!(
        text,
        "\nDuring the planned replacement, Postgres acknowledged {} events; {} of them were lost.\n\
         The last backup has {} bytes in S3 and took {:.2} s with all checks. The agent's peak memory was {} MiB.",
        result.acknowledged,
        result.lost,
        result.backup_bytes,
        result.backup_seconds,
        result.peak_memory_kib / 1024,
    )?;
    write_verdict(text, result.is_faithful())
}

fn write_containers(text: &mut String, result: &ContainerResult) -> Result {
    let columns: Vec<(&str, &Replacement)> = result
        .replacements
        .iter()
        .map(|(kind, replacement)| (kind.as_str(), replacement))
        .collect();
    for columns in columns.chunks(COLUMNS) {
        write_side_by_side(text, columns)?;
    }
    let (saved, bytes) = result.saved_images;
    writeln!(
        text,
        "\nPushed images: {}. Pulls by digest, each before the node was in service: {}. Replacements: {}.\n\
         Container images of the application in S3, loaded by each replacement: {saved} ({bytes} bytes).",
        result.images,
        result.pulled,
        result.replacements.len()
    )?;
    for problem in &result.noticed {
        writeln!(text, "PROBLEM: {problem}")?;
    }
    write_verdict(text, result.is_faithful())
}

/// Writes the timeline and the differences of each replacement, then one column for each.
fn write_side_by_side(text: &mut String, replacements: &[(&str, &Replacement)]) -> Result {
    for (title, replacement) in replacements {
        writeln!(text, "\n{title}")?;
        for (event, at) in &replacement.timeline {
            writeln!(text, "  {:>7.2} s  {event}", at.as_secs_f64())?;
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
    for (label, cell) in ROWS {
        write!(text, "{label:<44}")?;
        for (_, replacement) in replacements {
            write!(text, "{:>22}", cell(replacement))?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn write_verdict(text: &mut String, faithful: bool) -> Result {
    let verdict = if faithful {
        "PASSED: every replacement has all rows and files that it must have."
    } else {
        "FAILED: a replacement has lost or changed data; see DIFFERENT, PROBLEM and the numbers above."
    };
    writeln!(text, "{verdict}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn replacement(timeline: &[(&str, u64)]) -> Replacement {
        let at = |milliseconds: &u64| Duration::from_millis(*milliseconds);
        Replacement {
            rows: 101_000,
            different_rows: BTreeMap::new(),
            files: 40,
            different_files: Vec::new(),
            data_loss: Duration::from_millis(1_210),
            outage: Duration::from_secs(9),
            timeline: timeline
                .iter()
                .map(|(event, milliseconds)| ((*event).to_owned(), at(milliseconds)))
                .collect(),
            node_work: Duration::from_millis(3_100),
            orchestration: Duration::from_millis(420),
        }
    }

    #[test]
    fn the_table_shows_timelines_then_one_column_for_each_replacement() {
        let unplanned = replacement(&[("node lost", 0), ("in service", 9_000)]);
        let planned = Replacement {
            data_loss: Duration::ZERO,
            ..replacement(&[("termination requested", 0), ("in service", 12_345)])
        };
        let result = DemoResult {
            unplanned,
            planned,
            acknowledged: 500,
            lost: 0,
            peak_memory_kib: 61 * 1024,
            backup_bytes: 4_500_000,
            backup_seconds: 2.5,
        };
        insta::assert_snapshot!(of_processes(&result), @r#"

        unplanned loss
             0.00 s  node lost
             9.00 s  in service

        planned replacement
             0.00 s  termination requested
            12.35 s  in service

                                                            unplanned loss   planned replacement
        different rows                                         0 of 101000           0 of 101000
        different files                                            0 of 40               0 of 40
        data lost (RPO)                                             1.21 s                0.00 s
        time out of service (RTO)                                   9.00 s                9.00 s
          restore on the node                                       3.10 s                3.10 s
          Rekindle's functions                                      0.42 s                0.42 s
          AWS (accelerated), and final backup                       5.48 s                5.48 s

        During the planned replacement, Postgres acknowledged 500 events; 0 of them were lost.
        The last backup has 4500000 bytes in S3 and took 2.50 s with all checks. The agent's peak memory was 61 MiB.
        PASSED: every replacement has all rows and files that it must have.
        "#);
    }

    #[test]
    fn the_table_names_every_difference() {
        let mut different = replacement(&[("node lost", 0), ("in service", 9_000)]);
        different
            .different_rows
            .insert("registry.tag".to_owned(), 3);
        different.different_files.push("hub.yml".to_owned());
        let result = ContainerResult {
            replacements: vec![("unplanned loss".to_owned(), different)],
            images: 2,
            pulled: 2,
            noticed: vec!["the registry has another certificate".to_owned()],
            saved_images: (1, 100_000_000),
        };
        insta::assert_snapshot!(of_containers(&result), @r#"

        unplanned loss
             0.00 s  node lost
             9.00 s  in service
          DIFFERENT: 3 rows of registry.tag
          DIFFERENT: hub.yml

                                                            unplanned loss
        different rows                                         3 of 101000
        different files                                            1 of 40
        data lost (RPO)                                             1.21 s
        time out of service (RTO)                                   9.00 s
          restore on the node                                       3.10 s
          Rekindle's functions                                      0.42 s
          AWS (accelerated), and final backup                       5.48 s

        Pushed images: 2. Pulls by digest, each before the node was in service: 2. Replacements: 1.
        Container images of the application in S3, loaded by each replacement: 1 (100000000 bytes).
        PROBLEM: the registry has another certificate
        FAILED: a replacement has lost or changed data; see DIFFERENT, PROBLEM and the numbers above.
        "#);
    }
}
