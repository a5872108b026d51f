//! What a node answers: one line of JSON on standard output, and an exit code that says what kind of failure.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};
use crate::id::{BackupId, OperationId, RunId, Sha256};

/// The longest report, in bytes: SSM shows 2,500 characters of a step's output in a listing.
pub const MOST_REPORT_BYTES: usize = 2_000;

/// The longest message of a failure, in bytes.
const MOST_MESSAGE_BYTES: usize = 900;

/// Defines the exit codes in one table: code, stable word, whether it is permanent, and the remedy.
macro_rules! exit_codes {
    ($($variant:ident = $code:literal $permanence:ident $word:literal, $remedy:literal;)*) => {
        /// Why the agent ended without success. SSM gives 137 and 194 meanings of its own, so neither is used.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u8", into = "u8")]
        pub enum ExitCode {
            $(#[doc = $remedy] $variant,)*
        }

        impl ExitCode {
            /// Every exit code, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the process' exit status.
            pub fn code(self) -> u8 {
                match self { $(Self::$variant => $code,)* }
            }

            /// Returns the stable word: the `kind` of the failure metric.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// Returns what an operator does about it.
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }

            /// Tells whether the same command would fail again until somebody changes something.
            pub fn permanent(self) -> bool {
                match self { $(Self::$variant => exit_codes!(@$permanence),)* }
            }
        }

        impl TryFrom<u8> for ExitCode {
            type Error = String;

            fn try_from(code: u8) -> std::result::Result<Self, String> {
                match code {
                    $($code => Ok(Self::$variant),)*
                    other => Err(format!("{other} is not an exit code of rekindle-node")),
                }
            }
        }
    };
    (@permanent) => { true };
    (@transient) => { false };
}

exit_codes! {
    Internal = 10 transient "Internal", "A defect of the agent, or a surrounding that it does not know: read its log and report it.";
    Settings = 11 permanent "Settings", "Correct /etc/rekindle/node.toml; `rekindle-node check` names every problem.";
    AgentMismatch = 12 transient "AgentMismatch", "The agent could not be fetched from S3, or is not the one that the function published: check the node's access to agent/ in the bucket.";
    NotRestored = 13 permanent "NotRestored", "This node was never restored, so it is not backed up: replace it, or send the adopt event if its data are the truth.";
    Usage = 14 permanent "Usage", "The command line is not one that this agent knows: deploy functions and agent from the same version.";
    NodeState = 15 transient "NodeState", "The agent's own state under /var/lib/rekindle cannot be read or written: check the disk and its permissions.";
    PostgresUnreachable = 20 transient "PostgresUnreachable", "Start Postgres, or correct `[postgres]` in the settings: the container's name, or host and port.";
    Dump = 21 transient "Dump", "`pg_dump` or `pg_dumpall` failed: its own words are in the message.";
    Upload = 22 transient "Upload", "S3 refused or lost an upload: check the bucket's name, its policy and the node's role.";
    ConfigurationMissing = 23 permanent "ConfigurationMissing", "A configured path does not exist: create it, or correct `paths` in `[configuration]`.";
    ConfigurationCapture = 24 transient "ConfigurationCapture", "A configured file could not be archived: the message names it.";
    Verification = 25 transient "Verification", "What was read is not what was backed up, so it was neither committed nor restored: look at the named object's noncurrent versions, and at the node's memory and disk.";
    NoUsableBackup = 30 permanent "NoUsableBackup", "None of the offered backups passed verification: look at the skipped ones in the report; the README's section on restores that keep failing says how to go further back.";
    Download = 31 transient "Download", "S3 did not deliver an object: check the node's access to backups/ of its own application.";
    Restore = 32 transient "Restore", "`pg_restore` or `psql` failed: its own words are in the message.";
    ServerTooOld = 33 permanent "ServerTooOld", "The server is older than the one that was backed up: start the same or a newer major version.";
    ExtensionMissing = 34 permanent "ExtensionMissing", "Install the extension's files on the new node's server.";
    DiskTooSmall = 35 permanent "DiskTooSmall", "Give the node a larger volume.";
    ConfigurationRestore = 36 transient "ConfigurationRestore", "The configuration could not be put in place: the message names the file.";
    TablespaceMissing = 37 permanent "TablespaceMissing", "Create the tablespace's directory, or set tablespaces = \"default\".";
    StartCommand = 38 transient "StartCommand", "A start or stop command of the settings failed: its own words are in the message.";
    HealthCheck = 39 transient "HealthCheck", "The application did not become healthy in time after the restore.";
    Busy = 40 transient "Busy", "Another Rekindle command is running on this node; the next one will do.";
    Stalled = 41 transient "Stalled", "Nothing moved for `stall_limit_seconds`, so the agent ended itself.";
    Interrupted = 42 transient "Interrupted", "The agent was told to stop.";
}

impl From<ExitCode> for u8 {
    fn from(code: ExitCode) -> u8 {
        code.code()
    }
}

impl fmt::Display for ExitCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (exit code {})", self.word(), self.code())
    }
}

/// What a command came to, as the agent prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "kebab-case")]
pub enum Report {
    /// A backup is complete in S3 and waits for its commit.
    Backup(BackupReport),
    /// The node is ready to serve.
    Restore(RestoreReport),
    /// Nothing that counts was changed.
    Failure(FailureReport),
}

/// A finished backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupReport {
    /// The operation that asked for it.
    pub operation_id: OperationId,
    /// The backup.
    pub backup_id: BackupId,
    /// The attempt that succeeded.
    pub run_id: RunId,
    /// SHA-256 of `index.json`, which names every object by key, version, size, SHA-256 and CRC-64.
    pub index_sha256: Sha256,
    /// Bytes of `index.json`.
    pub index_size: u64,
    /// Databases dumped.
    pub databases: u64,
    /// Tables counted.
    pub tables: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes put into S3.
    pub bytes: u64,
    /// Wall-clock seconds.
    #[serde(deserialize_with = "duration")]
    pub seconds: f64,
    /// The agent's peak resident memory in KiB.
    pub peak_memory_kib: u64,
}

/// A finished restore.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// The operation that asked for it.
    pub operation_id: OperationId,
    /// What the node has now.
    pub outcome: RestoreOutcome,
    /// The newer backups that failed, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedBackup>,
    /// Wall-clock seconds.
    #[serde(deserialize_with = "duration")]
    pub seconds: f64,
    /// Seconds in which the live databases could not be reached because of the swap.
    #[serde(deserialize_with = "duration")]
    pub swap_seconds: f64,
    /// The agent's peak resident memory in KiB.
    pub peak_memory_kib: u64,
}

/// What a restored node has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum RestoreOutcome {
    /// The data of a backup.
    Restored {
        /// The backup.
        backup_id: BackupId,
        /// Seconds between the backup's start and its restore: the data loss at most.
        age_seconds: u64,
        /// Rows that were counted after the restore, equal to those of the backup.
        rows: u64,
        /// Bytes read from S3.
        bytes: u64,
    },
    /// An empty application: the application's first boot.
    FirstBoot,
    /// What it had: an earlier command had already made this node ready.
    AlreadyRestored {
        /// The backup that its data are from; none where it was started empty or adopted.
        backup_id: Option<BackupId>,
    },
}

impl RestoreOutcome {
    /// Returns the backup that the node's data are from; none where it was started empty or adopted.
    pub fn backup_id(&self) -> Option<&BackupId> {
        match self {
            Self::Restored { backup_id, .. } => Some(backup_id),
            Self::AlreadyRestored { backup_id } => backup_id.as_ref(),
            Self::FirstBoot => None,
        }
    }
}

/// A backup that a restore had to pass over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedBackup {
    /// The backup.
    pub backup_id: BackupId,
    /// What was wrong with it.
    pub exit_code: ExitCode,
    /// In words.
    pub reason: String,
}

/// A command that failed or was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureReport {
    /// The operation that asked for it.
    pub operation_id: OperationId,
    /// The agent's exit code.
    pub exit_code: ExitCode,
    /// The chain of causes.
    pub message: String,
}

impl Report {
    /// Writes the report as the one line that the agent prints: messages are shortened until it fits.
    pub fn to_line(&self) -> String {
        let mut report = self.clone();
        let mut most = MOST_MESSAGE_BYTES;
        loop {
            report.shorten_messages(most);
            // A report holds nothing that JSON cannot say.
            let line = serde_json::to_string(&report).unwrap_or_default();
            if line.len() <= MOST_REPORT_BYTES || most == 0 {
                return line;
            }
            most /= 2;
        }
    }

    /// Finds the report in what SSM kept of a step's standard output.
    pub fn from_output(output: &str) -> Result<Self> {
        let line = output
            .lines()
            .rev()
            .find(|line| line.starts_with("{\"report\""));
        let line =
            line.ok_or_else(|| Error::contract("the node's output", "it holds no report"))?;
        if line.len() > MOST_REPORT_BYTES {
            let problem = format!(
                "the report has {} bytes, at most {MOST_REPORT_BYTES} are read",
                line.len()
            );
            return Err(Error::contract("the node's output", problem));
        }
        serde_json::from_str(line)
            .map_err(|error| Error::contract("the node's report", format!("not readable: {error}")))
    }

    fn shorten_messages(&mut self, most: usize) {
        match self {
            Self::Backup(_) => {}
            Self::Restore(restore) => restore
                .skipped
                .iter_mut()
                .for_each(|skipped| shorten(&mut skipped.reason, most)),
            Self::Failure(failure) => shorten(&mut failure.message, most),
        }
    }
}

/// Reads seconds that a command can have taken. They become a metric, and CloudWatch refuses a line of metrics for one
/// number that is too large.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<f64, D::Error> {
    /// More than 30 years.
    const MOST: f64 = 1e9;
    let seconds = f64::deserialize(deserializer)?;
    if (0.0..=MOST).contains(&seconds) {
        return Ok(seconds);
    }
    Err(D::Error::custom(format!(
        "{seconds} seconds are no duration"
    )))
}

/// Cuts a text to at most `most` bytes, at a character's boundary, and marks the cut.
fn shorten(text: &mut String, most: usize) {
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

    #[test]
    fn exit_codes_stay_clear_of_those_that_ssm_interprets() {
        for code in ExitCode::ALL {
            assert!((10..100).contains(&code.code()), "{code}");
            assert_eq!(ExitCode::try_from(code.code()), Ok(*code));
        }
    }

    proptest! {
        #[test]
        fn every_report_fits_and_is_read_back(message in "\\PC{0,3000}", count in 0usize..4) {
            let skipped = SkippedBackup {
                backup_id: "20261123T021500.000Z".parse().unwrap(),
                exit_code: ExitCode::Restore,
                reason: message.clone(),
            };
            let failure = Report::Failure(FailureReport {
                operation_id: "launch-i-0123abcd".parse().unwrap(),
                exit_code: ExitCode::Dump,
                message,
            });
            let restore = Report::Restore(RestoreReport {
                operation_id: "launch-i-0123abcd".parse().unwrap(),
                outcome: RestoreOutcome::FirstBoot,
                skipped: vec![skipped; count],
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
        fn no_output_makes_the_reader_panic(output in "\\PC*") {
            prop_assert!(Report::from_output(&output).is_err());
        }
    }
}
