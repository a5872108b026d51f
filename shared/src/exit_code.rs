//! The agent's exit codes: one table of code, stable word, permanence and remedy.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Defines the exit codes in one table: code, whether it is permanent, stable word, and the remedy.
macro_rules! exit_codes {
    ($($variant:ident = $code:literal $permanence:ident $word:literal, $remedy:literal;)*) => {
        /// Why the agent ended without success. SSM gives 137 and 194 meanings of its own, so neither is used.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u8", into = "u8")]
        pub enum ExitCode {
            $(#[doc = $remedy] $variant,)*
        }

        impl ExitCode {
            /// Every exit code, in ascending order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the exit status of the process.
            pub fn code(self) -> u8 {
                match self { $(Self::$variant => $code,)* }
            }

            /// Returns the stable word: the dimension `Kind` of the metric `Failures`, and the field `kind` in the log.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// Returns the action that an operator takes.
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }

            /// Returns whether the same command would fail again until somebody changes something.
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
    Internal = 10 transient "Internal", "Read the agent's log and report it: this is a defect of the agent, or an environment that it does not support.";
    Settings = 11 permanent "Settings", "Correct /etc/rekindle/node.toml; `rekindle-node check` names every problem.";
    AgentMismatch = 12 transient "AgentMismatch", "Check the node's access to agent/ in the bucket: the agent could not be fetched, or is not the one that the function published.";
    NotRestored = 13 permanent "NotRestored", "Replace the node, or send adopt if its data are the current data: it has no valid `restored` marker, so it is not backed up.";
    Usage = 14 permanent "Usage", "Deploy functions and agent from the same version: the agent does not support this command line.";
    NodeState = 15 transient "NodeState", "Check the disk and the permissions of /var/lib/rekindle: the agent cannot read or write its state there.";
    PostgresUnreachable = 20 transient "PostgresUnreachable", "Start Postgres, or correct `[postgres]` in the settings: the container's name, or host and port.";
    Dump = 21 transient "Dump", "Read the output of `pg_dump` or `pg_dumpall` in the message: one of them failed.";
    Upload = 22 transient "Upload", "Check the bucket's name, its policy and the node's role: S3 refused or lost an upload.";
    ConfigurationMissing = 23 permanent "ConfigurationMissing", "Create the configured path that the message names, or correct `paths` in `[configuration]`.";
    ConfigurationCapture = 24 transient "ConfigurationCapture", "Check the file that the message names: it could not be archived.";
    Verification = 25 transient "Verification", "Check the named object's noncurrent versions, and the node's memory and disk: the data that were read differ from the backed-up data, so nothing was committed or restored.";
    PostgresNotReady = 26 transient "PostgresNotReady", "Read the server's log: Postgres answers, but it is starting, in recovery or a standby, has no connection left, or ended the session.";
    PostgresRefused = 27 permanent "PostgresRefused", "Correct what the message names: Postgres refuses the agent's user, its password, its database or its rights. Retries do not help.";
    ExceptionsRefused = 28 permanent "ExceptionsRefused", "Set `[postgres] exceptions = \"admit\"`, send resume, and run the SQL of the exceptions: all rows could be restored, but Postgres refuses other parts of the backup.";
    LocaleMissing = 29 permanent "LocaleMissing", "Install the locale on the new node, in the container's image if Postgres runs in one, and restart Postgres.";
    NoUsableBackup = 30 permanent "NoUsableBackup", "Check the skipped backups in the report: no offered backup passed verification. docs/operating.md, \"When restores keep failing\", describes how to go further back.";
    Download = 31 transient "Download", "Check the node's access to backups/ of its own application: S3 did not deliver an object.";
    Restore = 32 transient "Restore", "Read the message: Postgres refused or lost rows, or one of its tools failed. No older backup was tried.";
    ServerTooOld = 33 permanent "ServerTooOld", "Start a server of the same or a newer major version: this server is older than the one that was backed up.";
    ExtensionMissing = 34 permanent "ExtensionMissing", "Install the extension's files on the new node's server.";
    DiskTooSmall = 35 permanent "DiskTooSmall", "Give the node a larger volume.";
    ConfigurationRestore = 36 transient "ConfigurationRestore", "Check the file that the message names: it could not be moved into place.";
    TablespaceMissing = 37 permanent "TablespaceMissing", "Create the tablespace's directory, or set tablespaces = \"default\".";
    StartCommand = 38 transient "StartCommand", "Correct the start or stop command in the settings: it failed, and the message has its output.";
    HealthCheck = 39 transient "HealthCheck", "Read the application's log: it did not become healthy in time after the restore.";
    Busy = 40 transient "Busy", "Wait: another Rekindle command is running on this node, and a later command will succeed.";
    Stalled = 41 transient "Stalled", "Check Postgres, the disk and the network: there was no progress for `stall_limit_seconds`, so the agent ended itself.";
    Interrupted = 42 transient "Interrupted", "Check who stopped the agent: it received a signal to stop, for example at a shutdown of the instance.";
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_avoid_those_that_ssm_interprets() {
        for code in ExitCode::ALL {
            assert!((10..100).contains(&code.code()), "{code}");
            assert_eq!(ExitCode::try_from(code.code()), Ok(*code));
        }
    }
}
