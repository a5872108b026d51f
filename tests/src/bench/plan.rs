//! The plan of a benchmark run, and the names of its two main contenders.

/// The contender that is Rekindle.
pub(super) const REKINDLE: &str = "rekindle";
/// The system that Rekindle replaces: cron and shell scripts around `pg_dump`, `pg_restore` and the aws CLI.
pub(super) const ORIGINAL: &str = "the original's script";

/// The rows to measure, the number of runs, and the log of the progress.
pub struct Plan {
    /// Only rows whose names contain one of these; every row if this is empty.
    pub only: Vec<String>,
    /// The number of runs of each contender.
    pub runs: usize,
    /// Whether a database of 4 GB is also measured.
    pub large: bool,
    /// Gets a line for each step.
    pub log: Box<dyn Fn(&str) + Send + Sync>,
}

impl Plan {
    pub(super) fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| row.contains(part))
    }

    pub(super) fn log(&self, step: &str) {
        (self.log)(step);
    }

    pub(super) fn log_run(&self, row: &str, run: usize) {
        self.log(&format!("{row}, run {run} of {}", self.runs));
    }
}
