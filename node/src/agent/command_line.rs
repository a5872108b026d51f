//! The command line of the agent.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use shared::command::{Candidate, Mode, Purpose, RestoreCommand};
use shared::id::BackupId;
use shared::operation::Operation;

/// Backs up and restores the application of this node. SSM runs it.
#[derive(Debug, Parser)]
#[command(name = "rekindle-node", version)]
pub(crate) struct CommandLine {
    /// Prefix of every path that the agent uses, such as the mount point of a broken node's disk.
    #[arg(
        long,
        global = true,
        env = "REKINDLE_ROOT",
        default_value = "/",
        value_parser = clap::builder::OsStringValueParser::new()
    )]
    root: OsString,
    #[command(subcommand)]
    pub(crate) task: Task,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Upload a backup to S3. The backup function commits it afterwards.
    Backup {
        /// Id of the operation. A second command with the same id gets the same report.
        #[arg(long)]
        operation_id: Operation,
        /// Id of the new backup.
        #[arg(long)]
        backup_id: BackupId,
        /// One of: scheduled, manual, final, adopt, pre-restore.
        #[arg(long)]
        purpose: Purpose,
    },
    /// Restore the newest usable backup of the candidates, and start the application.
    Restore {
        /// Id of the operation. A second command with the same id gets the same report.
        #[arg(long)]
        operation_id: Operation,
        /// `<backup id>/<run id>/<SHA-256 of the index>/<version or ->`, newest first, separated by commas; or `none`.
        #[arg(long)]
        candidates: Candidates,
        /// `launch`, or `in-place` to replace the data of a serving node.
        #[arg(long, default_value = "launch")]
        mode: Mode,
    },
    /// Check the settings, and print what the agent will do.
    Check,
}

/// The argument of `--candidates`.
#[derive(Debug, Clone)]
pub(crate) struct Candidates(pub(crate) Vec<Candidate>);

impl std::str::FromStr for Candidates {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        RestoreCommand::parse_candidates(text).map(Self)
    }
}

impl CommandLine {
    /// Returns the root. An empty root means `/`: the SSM documents pass an empty one by default.
    pub(crate) fn root(&self) -> PathBuf {
        if self.root.is_empty() {
            return PathBuf::from("/");
        }
        PathBuf::from(&self.root)
    }
}

/// Returns the operation id in arguments that clap refused, so that the failure can be reported for this operation.
/// `None` if they have no valid one.
pub(crate) fn operation_of(arguments: &[OsString]) -> Option<Operation> {
    let mut texts = arguments.iter().filter_map(|argument| argument.to_str());
    while let Some(text) = texts.next() {
        match text.strip_prefix("--operation-id") {
            Some("") => return texts.next()?.parse().ok(),
            Some(rest) => return rest.strip_prefix('=')?.parse().ok(),
            None => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_command_lines_of_the_documents_are_accepted() {
        let backup = "rekindle-node backup --operation-id 20261123T021500.000Z --backup-id 20261123T021500.000Z \
                      --purpose scheduled";
        let CommandLine { task, .. } = CommandLine::try_parse_from(arguments(backup)).unwrap();
        assert!(matches!(
            task,
            Task::Backup {
                purpose: Purpose::Scheduled,
                ..
            }
        ));

        let restore =
            "rekindle-node restore --operation-id launch-i-0123abcd --candidates none --root /mnt";
        let line = CommandLine::try_parse_from(arguments(restore)).unwrap();
        assert_eq!(line.root(), PathBuf::from("/mnt"));
        assert!(
            matches!(line.task, Task::Restore { candidates: Candidates(none), .. } if none.is_empty())
        );
    }

    #[test]
    fn an_empty_root_is_the_root_directory() {
        let line = CommandLine::try_parse_from(["rekindle-node", "--root", "", "check"]).unwrap();
        assert_eq!(line.root(), PathBuf::from("/"));
    }

    #[test]
    fn the_operation_id_of_a_refused_command_line_is_found() {
        let found = |line| operation_of(&arguments(line)).map(String::from);
        let operation = Some("launch-i-0123abcd".to_owned());
        assert_eq!(
            found("x backup --operation-id launch-i-0123abcd --purpose no"),
            operation
        );
        assert_eq!(
            found("x backup --operation-id=launch-i-0123abcd"),
            operation
        );
        assert_eq!(found("x backup --operation-id"), None);
        assert_eq!(found("x backup --operation-id ../x"), None);
    }
}
