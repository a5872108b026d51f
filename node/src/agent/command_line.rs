//! What the agent is asked to do, and by which root.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use shared::command::{Candidate, Mode, Purpose, RestoreCommand};
use shared::id::{BackupId, OperationId};

/// Backs up and restores the application of this instance; SSM runs it.
#[derive(Debug, Parser)]
#[command(name = "rekindle-node", version)]
pub(crate) struct CommandLine {
    /// Prefixes every path that the agent uses, as for rescuing a node whose disk is mounted elsewhere.
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

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Put a backup into S3, for the backup function to commit.
    Backup {
        /// What makes a second delivery of the same request harmless.
        #[arg(long)]
        operation_id: OperationId,
        /// The name of the backup.
        #[arg(long)]
        backup_id: BackupId,
        /// scheduled, manual, final, adopt or pre-restore.
        #[arg(long)]
        purpose: Purpose,
    },
    /// Make this node ready to serve, from the newest usable of some backups.
    Restore {
        /// What makes a second delivery of the same request harmless.
        #[arg(long)]
        operation_id: OperationId,
        /// `<backup id>/<run id>/<SHA-256 of the index>/<version or ->`, newest first, separated by commas; or none.
        #[arg(long)]
        candidates: Candidates,
        /// launch, or in-place: the latter replaces what a serving node has.
        #[arg(long, default_value = "launch")]
        mode: Mode,
    },
    /// Check the settings and say how they are understood.
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
    /// Returns the root; an empty one is `/`, as in the documents that SSM runs.
    pub(crate) fn root(&self) -> PathBuf {
        if self.root.is_empty() {
            return PathBuf::from("/");
        }
        PathBuf::from(&self.root)
    }
}

/// Finds the operation id in arguments that could not be understood, so that even their refusal is a report.
pub(crate) fn operation_of(arguments: &[OsString]) -> Option<OperationId> {
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
    fn the_documents_lines_are_understood() {
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
    fn an_empty_root_is_the_whole_system() {
        let line = CommandLine::try_parse_from(["rekindle-node", "--root", "", "check"]).unwrap();
        assert_eq!(line.root(), PathBuf::from("/"));
    }

    #[test]
    fn a_refused_line_still_names_its_operation() {
        let found = |line| operation_of(&arguments(line)).map(String::from);
        assert_eq!(
            found("x backup --operation-id a.b --purpose no"),
            Some("a.b".to_owned())
        );
        assert_eq!(found("x backup --operation-id=a.b"), Some("a.b".to_owned()));
        assert_eq!(found("x backup --operation-id"), None);
        assert_eq!(found("x backup --operation-id ../x"), None);
    }
}
