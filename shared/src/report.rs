//! The agent's report: one line of JSON on standard output. The exit code names the kind of failure.

pub mod exceptions;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};
use crate::exit_code::ExitCode;
use crate::id::{BackupId, RunId, Sha256};
use crate::operation::Operation;
use crate::report::exceptions::ReportedExceptions;

/// The longest report, in bytes: SSM shows 2,500 characters of a step's output in a listing.
pub const MOST_REPORT_BYTES: usize = 2_000;

/// The result of a command, as the agent prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "kebab-case")]
pub enum Report {
    /// A backup is complete in S3 and not yet committed.
    Backup(BackupReport),
    /// The node is ready to serve.
    Restore(RestoreReport),
    /// The command failed or was refused. No backup was completed, and no data were replaced.
    Failure(FailureReport),
}

/// A finished backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupReport {
    /// The operation of the command.
    pub operation_id: Operation,
    /// The backup.
    pub backup_id: BackupId,
    /// The run that wrote the objects.
    pub run_id: RunId,
    /// SHA-256 of `index.json`, which names every object by key, version, size, SHA-256 and CRC-64.
    pub index_sha256: Sha256,
    /// Bytes of `index.json`.
    pub index_size: u64,
    /// The number of dumped databases.
    pub databases: u64,
    /// The number of tables whose rows were counted.
    pub tables: u64,
    /// The number of rows in these tables.
    pub rows: u64,
    /// Bytes written to S3.
    pub bytes: u64,
    /// Wall-clock duration in seconds.
    #[serde(deserialize_with = "duration")]
    pub seconds: f64,
    /// The agent's peak resident memory in KiB.
    pub peak_memory_kib: u64,
}

/// A finished restore.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// The operation of the command.
    pub operation_id: Operation,
    /// The origin of the node's data.
    pub outcome: RestoreOutcome,
    /// The newer backups that could not be restored, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedBackup>,
    /// What the server refused to restore other than rows.
    #[serde(default, skip_serializing_if = "ReportedExceptions::is_empty")]
    pub exceptions: ReportedExceptions,
    /// Wall-clock duration in seconds.
    #[serde(deserialize_with = "duration")]
    pub seconds: f64,
    /// Seconds for which clients could not reach the databases because of the swap.
    #[serde(deserialize_with = "duration")]
    pub swap_seconds: f64,
    /// The agent's peak resident memory in KiB.
    pub peak_memory_kib: u64,
}

/// The origin of a restored node's data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum RestoreOutcome {
    /// A backup that this command restored.
    Restored {
        /// The backup.
        backup_id: BackupId,
        /// Seconds between the backup's start and its restore: the upper limit of the data loss.
        age_seconds: u64,
        /// Rows counted after the restore, equal to those of the backup.
        rows: u64,
        /// Bytes read from S3.
        bytes: u64,
    },
    /// The application was started empty at its first boot.
    FirstBoot,
    /// An earlier command had made this node ready already.
    AlreadyRestored {
        /// The backup that was restored, or `None` if the node was started empty or adopted.
        backup_id: Option<BackupId>,
    },
}

impl RestoreOutcome {
    /// Returns the backup that was restored, or `None` if the node was started empty or adopted.
    pub fn backup_id(&self) -> Option<&BackupId> {
        match self {
            Self::Restored { backup_id, .. } => Some(backup_id),
            Self::AlreadyRestored { backup_id } => backup_id.as_ref(),
            Self::FirstBoot => None,
        }
    }
}

/// A backup that a restore skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedBackup {
    /// The backup.
    pub backup_id: BackupId,
    /// The kind of failure.
    pub exit_code: ExitCode,
    /// The reason, for a person.
    pub reason: String,
}

/// A command that failed or was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureReport {
    /// The operation of the command.
    pub operation_id: Operation,
    /// The agent's exit code.
    pub exit_code: ExitCode,
    /// The reason: the chain of causes.
    pub message: String,
}

impl Report {
    /// Returns the report as the one line that the agent prints, of at most [`MOST_REPORT_BYTES`] bytes. Messages are
    /// shortened until it fits.
    pub fn to_line(&self) -> String {
        let mut report = self.clone();
        let mut most = MOST_REPORT_BYTES;
        loop {
            report.shorten_messages(most);
            // A report has only types that JSON can represent.
            let line = serde_json::to_string(&report).unwrap_or_default();
            if line.len() <= MOST_REPORT_BYTES || most == 0 {
                return line;
            }
            // In small steps: the end of a message may contain the reason.
            most -= most.div_ceil(20);
        }
    }

    /// Returns the report in the beginning of a step's standard output, as SSM stores it.
    ///
    /// # Errors
    /// [`Error::Contract`] if the output has no valid report.
    pub fn from_output(output: &str) -> Result<Self> {
        let line = output
            .lines()
            .rev()
            .find(|line| line.starts_with("{\"report\""));
        let line = line.ok_or_else(|| {
            Error::contract(
                "the node's output",
                "it holds no report; read the command's output in SSM",
            )
        })?;
        if line.len() > MOST_REPORT_BYTES {
            let problem = format!(
                "the report has {} bytes, at most {MOST_REPORT_BYTES} are read; deploy functions and agent from the same version",
                line.len()
            );
            return Err(Error::contract("the node's output", problem));
        }
        serde_json::from_str(line).map_err(|error| {
            Error::contract(
                "the node's report",
                format!("not readable: {error}; deploy functions and agent from the same version"),
            )
        })
    }

    fn shorten_messages(&mut self, most: usize) {
        match self {
            Self::Backup(_) => {}
            Self::Restore(restore) => {
                let reasons = restore
                    .skipped
                    .iter_mut()
                    .map(|skipped| &mut skipped.reason);
                reasons
                    .chain(&mut restore.exceptions.first)
                    .for_each(|text| shorten(text, most));
            }
            Self::Failure(failure) => shorten(&mut failure.message, most),
        }
    }
}

/// Reads a duration in seconds. It becomes a metric, and CloudWatch refuses a whole line of metrics if one number is
/// too large.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<f64, D::Error> {
    /// More than 30 years.
    const MOST: f64 = 1e9;
    let seconds = f64::deserialize(deserializer)?;
    if (0.0..=MOST).contains(&seconds) {
        return Ok(seconds);
    }
    Err(D::Error::custom(format!(
        "{seconds} seconds are no duration of a command"
    )))
}

/// Cuts a text to at most `most` bytes between two characters, and marks the cut.
pub fn shorten(text: &mut String, most: usize) {
    const MARK: &str = " […]";
    if text.len() <= most {
        return;
    }
    let end = (0..=most.saturating_sub(MARK.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0);
    text.truncate(end);
    text.push_str(MARK);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_report_fits_into_its_limit_and_is_read_back(message in "\\PC{0,3000}", count in 0usize..4) {
            let skipped = SkippedBackup {
                backup_id: "20261123T021500.000Z".parse().unwrap(),
                exit_code: ExitCode::Restore,
                reason: message.clone(),
            };
            let failure = Report::Failure(FailureReport {
                operation_id: "launch-i-0123abcd".parse().unwrap(),
                exit_code: ExitCode::Dump,
                message: message.clone(),
            });
            let restore = Report::Restore(RestoreReport {
                operation_id: "launch-i-0123abcd".parse().unwrap(),
                outcome: RestoreOutcome::FirstBoot,
                skipped: vec![skipped; count],
                exceptions: ReportedExceptions {
                    count: count as u64,
                    key: Some("k".repeat(150)).filter(|_| count > 0),
                    first: vec![message.clone(); count],
                },
                seconds: 1.0,
                swap_seconds: 0.0,
                peak_memory_kib: 1,
            });
            for report in [failure, restore] {
                let line = report.to_line();
                prop_assert!(line.len() <= MOST_REPORT_BYTES);
                let output = format!("{line}\n");
                prop_assert!(Report::from_output(&output).is_ok());
            }
        }

        #[test]
        fn a_failure_uses_the_whole_report(message in "[ -~]{2000,3000}") {
            let report = Report::Failure(FailureReport {
                operation_id: "launch-i-0123abcd".parse().unwrap(),
                exit_code: ExitCode::Dump,
                message,
            });
            prop_assert!(report.to_line().len() > MOST_REPORT_BYTES * 9 / 10);
        }

        #[test]
        fn no_output_makes_the_parser_panic(output in "\\PC*") {
            prop_assert!(Report::from_output(&output).is_err());
        }
    }
}
