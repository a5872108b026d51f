//! The table and the JSON of a run.

use std::fmt::Write as _;

use serde::Serialize;

use super::sample::{Contender, Goal, Row, Sample, calls, memory, ratio, stored, time, written};

/// The results of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Findings {
    /// The machine, the server and the programs.
    pub machine: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
}

const MEGA: f64 = 1_000_000.0;

/// Returns the table: one line for each contender of a row, then the row's goals.
pub fn table(findings: &Findings) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for line in &findings.machine {
        writeln!(text, "{line}")?;
    }
    for row in &findings.rows {
        writeln!(
            text,
            "\n{:<54}{:>10}{:>19}{:>8}{:>8}{:>8}{:>7}{:>9}{:>9}{:>8}",
            row.name,
            "median",
            "least – most",
            "ratio",
            "CPU s",
            "server",
            "MiB",
            "S3 MB",
            "disk MB",
            "calls"
        )?;
        for contender in &row.contenders {
            text += &line(row, contender);
        }
        for goal in &row.goals {
            writeln!(text, "  {}", verdict(goal))?;
        }
        if row.misses() {
            for line in &row.profile {
                writeln!(text, "    {line}")?;
            }
        }
    }
    let goals: Vec<&Goal> = findings.rows.iter().flat_map(|row| &row.goals).collect();
    let met = goals.iter().filter(|goal| goal.is_met()).count();
    writeln!(text, "\n{met} of {} goals are met.", goals.len())?;
    Ok(text)
}

fn line(row: &Row, contender: &Contender) -> String {
    let cell = |figure: Option<f64>, digits: usize| {
        figure.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.digits$}"))
    };
    let spread = contender.spread(time).map_or_else(String::new, |(a, b)| {
        format!("{} – {}", seconds(a), seconds(b))
    });
    let ours = row.contenders.first();
    let of_ours = ours
        .filter(|ours| ours.name != contender.name)
        .and_then(|ours| ratio(ours, contender, time));
    let cpu = |sample: &Sample| sample.cpu_seconds;
    let server = |sample: &Sample| sample.server_cpu_seconds;
    let scaled = |figure: Option<f64>| figure.map(|bytes| bytes / MEGA);
    format!(
        "  {:<52}{:>10}{:>19}{:>8}{:>8}{:>8}{:>7}{:>9}{:>9}{:>8}\n",
        contender.name,
        contender.median(time).map_or_else(String::new, seconds),
        spread,
        cell(of_ours, 2),
        cell(contender.median(cpu), 2),
        cell(contender.median(server), 2),
        cell(contender.median(memory), 0),
        cell(scaled(contender.median(stored)), 1),
        cell(scaled(contender.median(written)), 1),
        cell(contender.median(calls), 0),
    )
}

/// Returns a time with three significant digits.
fn seconds(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.1 => format!("{:.1} ms", seconds * 1_000.0),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1_000.0),
        seconds if seconds < 100.0 => format!("{seconds:.2} s"),
        seconds => format!("{seconds:.0} s"),
    }
}

fn verdict(goal: &Goal) -> String {
    let verdict = if goal.is_met() { "met" } else { "MISSED" };
    format!(
        "{verdict}: {}: {} (goal: at most {})",
        goal.what,
        rounded(goal.value),
        rounded(goal.limit)
    )
}

fn rounded(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Findings {
        let mut row = Row::new("backup of 40 MB");
        for (ours, theirs) in [(0.5, 1.0), (0.4, 2.0), (0.6, 1.0)] {
            let sample = Sample {
                seconds: ours,
                s3_bytes: Some(2_000_000),
                disk_bytes: Some(0),
                ..Sample::default()
            };
            row.add("rekindle", sample);
            let sample = Sample {
                seconds: theirs,
                s3_bytes: Some(10_000_000),
                ..Sample::default()
            };
            row.add("the original", sample);
        }
        row.compare("time relative to the original", "the original", 0.45, time);
        row.compare(
            "bytes relative to the original",
            "the original",
            0.3,
            stored,
        );
        row.profile.push("98 % of the cores: pg_dump".to_owned());
        Findings {
            machine: vec!["a machine".to_owned()],
            rows: vec![row],
        }
    }

    #[test]
    fn the_table_has_the_measurements_and_the_missed_goals() {
        let text = table(&findings()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "a machine");
        let cells = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let ours = [
            "rekindle", "500", "ms", "400", "ms", "–", "600", "ms", "–", "–", "–", "–", "2.0",
            "0.0", "–",
        ];
        assert_eq!(cells(lines[3]), ours);
        let theirs = [
            "the", "original", "1.00", "s", "1.00", "s", "–", "2.00", "s", "0.50", "–", "–", "–",
            "10.0", "–", "–",
        ];
        assert_eq!(cells(lines[4]), theirs);
        assert_eq!(
            lines[5],
            "  MISSED: time relative to the original: 0.5 (goal: at most 0.45)"
        );
        assert_eq!(
            lines[6],
            "  met: bytes relative to the original: 0.2 (goal: at most 0.3)"
        );
        assert_eq!(lines[7], "    98 % of the cores: pg_dump");
        assert_eq!(lines[9], "1 of 2 goals are met.");
    }

    #[test]
    fn the_json_has_every_run() {
        let json = serde_json::to_value(findings()).unwrap();
        let row = &json["rows"][0];
        assert_eq!(row["contenders"][0]["samples"][1]["seconds"], 0.4);
        assert_eq!(row["contenders"][1]["name"], "the original");
        assert_eq!(row["goals"][1]["limit"], 0.3);
    }
}
