//! The commands to a node: the parameters of the two SSM documents.
//!
//! Each document checks every value against its `allowedPattern`, so no text from an event reaches a shell. No value is
//! a secret, because SSM keeps a history of commands.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::error::{Error, Result};
use crate::id::{BackupId, MalformedName, RunId, Sha256, is_version};
use crate::operation::Operation;

/// The step of both documents that fetches the agent.
pub const FETCH_STEP: &str = "fetchAgent";

/// The step of both documents that runs the agent: the `PluginName` of `GetCommandInvocation`.
pub const AGENT_STEP: &str = "runAgent";

/// The most backups in one restore command: the newest and its fallbacks.
pub const MOST_CANDIDATES: usize = 3;

/// Why a backup is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// The schedule requested it.
    Scheduled,
    /// An operator requested it.
    Manual,
    /// The instance is being terminated: the final backup. The application is stopped first, and the node is
    /// decommissioned after it.
    Final,
    /// An operator adopts the data of a running node.
    Adopt,
    /// An operator requested an in-place restore, which starts when this backup is in S3.
    PreRestore,
}

impl Purpose {
    /// Returns the value of the document's parameter and of the agent's `--purpose`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Manual => "manual",
            Self::Final => "final",
            Self::Adopt => "adopt",
            Self::PreRestore => "pre-restore",
        }
    }
}

impl FromStr for Purpose {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let all = [
            Self::Scheduled,
            Self::Manual,
            Self::Final,
            Self::Adopt,
            Self::PreRestore,
        ];
        all.into_iter()
            .find(|purpose| purpose.as_str() == text)
            .ok_or_else(|| {
                let all = all.map(Self::as_str).join(", ");
                format!("purpose {text:?} is none of {all}")
            })
    }
}

/// A backup that a restore may use, with the hash of its index.
///
/// Its text is `<backup id>/<run id>/<SHA-256 of the index>/<version id, or ->`. The node reads the index below its own
/// application's prefix and checks the hash, so it needs no access to manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The backup.
    pub backup_id: BackupId,
    /// The run that was committed.
    pub run_id: RunId,
    /// The SHA-256 of the committed `index.json`.
    pub index_sha256: Sha256,
    /// The S3 version of the index, if the bucket keeps versions.
    pub index_version: Option<String>,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.index_version.as_deref().unwrap_or("-");
        write!(
            f,
            "{}/{}/{}/{version}",
            self.backup_id, self.run_id, self.index_sha256
        )
    }
}

impl FromStr for Candidate {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let [backup_id, run_id, sha256, version] = parts[..] else {
            return Err(format!(
                "candidate {text:?} is not <backup id>/<run id>/<SHA-256>/<version or ->"
            ));
        };
        let malformed = |error: MalformedName| format!("candidate {text:?}: {error}");
        let version = Some(version).filter(|version| *version != "-");
        if version.is_some_and(|version| !is_version(version)) {
            return Err(format!(
                "candidate {text:?}: the version is too long, or has characters that S3 does not use"
            ));
        }
        Ok(Self {
            backup_id: backup_id.parse().map_err(malformed)?,
            run_id: run_id.parse().map_err(malformed)?,
            index_sha256: sha256.parse().map_err(malformed)?,
            index_version: version.map(str::to_owned),
        })
    }
}

/// A backup command. It may be sent to several instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupCommand {
    /// The operation. The agent runs it once, even if SSM delivers it several times.
    pub operation_id: Operation,
    /// The id of the backup to make.
    pub backup_id: BackupId,
    /// Why the backup is taken.
    pub purpose: Purpose,
}

/// The kind of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A launch restore onto a new node. A node that was restored before is not changed.
    Launch,
    /// An in-place restore onto a running node. It replaces the current data.
    InPlace,
}

impl Mode {
    /// Returns the value of the document's parameter and of the agent's `--mode`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::InPlace => "in-place",
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        [Self::Launch, Self::InPlace]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| format!("mode {text:?} is neither launch nor in-place"))
    }
}

/// A restore command for one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreCommand {
    /// The operation. The agent runs it once, even if SSM delivers it several times.
    pub operation_id: Operation,
    /// The kind of the restore.
    pub mode: Mode,
    /// The backups to choose from, newest first. If there are none, the application starts empty: its first boot.
    pub candidates: Vec<Candidate>,
}

/// The parameters of a document, as SSM has them: each is a list of strings.
pub type Parameters = HashMap<String, Vec<String>>;

const OPERATION_ID: &str = "OperationId";
const BACKUP_ID: &str = "BackupId";
const PURPOSE: &str = "Purpose";
const CANDIDATES: &str = "Candidates";
const MODE: &str = "Mode";
const AGENT_SHA256: &str = "AgentSha256";
const FETCH_ID: &str = "FetchId";
const EXECUTION_TIMEOUT: &str = "ExecutionTimeout";

/// The list of candidates for a first boot: SSM allows no empty strings as parameters.
const NO_CANDIDATES: &str = "none";

impl BackupCommand {
    /// Returns the parameters of the backup document. `agent` is the hash of the agent to fetch, `execution_timeout` is
    /// in seconds.
    pub fn parameters(&self, agent: &Sha256, execution_timeout: u32) -> Parameters {
        parameters([
            (OPERATION_ID, self.operation_id.to_string()),
            (BACKUP_ID, self.backup_id.to_string()),
            (PURPOSE, self.purpose.as_str().to_owned()),
            (AGENT_SHA256, agent.to_string()),
            (FETCH_ID, fetch_id()),
            (EXECUTION_TIMEOUT, execution_timeout.to_string()),
        ])
    }

    /// Parses the parameters of a command in SSM's history.
    ///
    /// # Errors
    /// [`Error::Contract`] if a parameter is missing or malformed.
    pub fn from_parameters(parameters: &Parameters) -> Result<Self> {
        Ok(Self {
            operation_id: parameter(parameters, OPERATION_ID)?,
            backup_id: parameter(parameters, BACKUP_ID)?,
            purpose: parameter(parameters, PURPOSE)?,
        })
    }
}

impl RestoreCommand {
    /// Returns the parameters of the restore document. `agent` is the hash of the agent to fetch, `execution_timeout`
    /// is in seconds.
    pub fn parameters(&self, agent: &Sha256, execution_timeout: u32) -> Parameters {
        let candidates: Vec<String> = self.candidates.iter().map(Candidate::to_string).collect();
        let candidates = if candidates.is_empty() {
            NO_CANDIDATES.to_owned()
        } else {
            candidates.join(",")
        };
        parameters([
            (OPERATION_ID, self.operation_id.to_string()),
            (CANDIDATES, candidates),
            (MODE, self.mode.as_str().to_owned()),
            (AGENT_SHA256, agent.to_string()),
            (FETCH_ID, fetch_id()),
            (EXECUTION_TIMEOUT, execution_timeout.to_string()),
        ])
    }

    /// Parses the list of candidates in the document's parameter.
    ///
    /// # Errors
    /// A message if a candidate is malformed, or if there are more than [`MOST_CANDIDATES`].
    pub fn parse_candidates(text: &str) -> std::result::Result<Vec<Candidate>, String> {
        if text == NO_CANDIDATES {
            return Ok(Vec::new());
        }
        let count = text.split(',').count();
        if count > MOST_CANDIDATES {
            return Err(format!(
                "{count} candidates are more than {MOST_CANDIDATES}"
            ));
        }
        text.split(',').map(Candidate::from_str).collect()
    }
}

/// Returns the operation in the parameters of a command in SSM's history.
///
/// # Errors
/// [`Error::Contract`] if the parameter is missing or malformed.
pub fn operation(parameters: &Parameters) -> Result<Operation> {
    parameter(parameters, OPERATION_ID)
}

/// Returns the name of the folder into which a command fetches the agent. SSM downloads to a fixed name and then
/// renames the file. Without separate folders, two concurrent commands (of a launch's event and of a sweep) would
/// rename each other's file.
fn fetch_id() -> String {
    format!("{:016x}", OffsetDateTime::now_utc().unix_timestamp_nanos())
}

fn parameters<const N: usize>(pairs: [(&str, String); N]) -> Parameters {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), vec![value]))
        .collect()
}

fn parameter<T: FromStr>(parameters: &Parameters, name: &'static str) -> Result<T>
where
    T::Err: fmt::Display,
{
    let value = parameters.get(name).and_then(|values| values.first());
    let value = value
        .ok_or_else(|| Error::contract("a command's parameters", format!("{name} is missing")))?;
    value.parse().map_err(|error: T::Err| {
        Error::contract("a command's parameters", format!("{name}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(version: Option<&str>) -> Candidate {
        Candidate {
            backup_id: "20261123T021500.000Z".parse().unwrap(),
            run_id: "0a1b2c3d".parse().unwrap(),
            index_sha256: "ab".repeat(32).parse().unwrap(),
            index_version: version.map(str::to_owned),
        }
    }

    #[test]
    fn candidates_are_read_back_from_the_document_parameter() {
        let candidates = vec![candidate(Some("3HL4kqtJvjVBH40Nrjfkd")), candidate(None)];
        let command = RestoreCommand {
            operation_id: "launch-i-0123abcd".parse().unwrap(),
            mode: Mode::Launch,
            candidates: candidates.clone(),
        };
        let parameters = command.parameters(&"0".repeat(64).parse().unwrap(), 60);
        assert_eq!(
            RestoreCommand::parse_candidates(&parameters[CANDIDATES][0]).unwrap(),
            candidates
        );
    }

    #[test]
    fn candidates_that_the_document_refuses_are_refused() {
        let (one, long) = (candidate(None).to_string(), "v".repeat(257));
        let cases = [
            [one.as_str(); 4].join(","),
            candidate(Some(&long)).to_string(),
            format!("{one}, {one}"),
            format!("{one},none"),
        ];
        for text in cases {
            assert!(RestoreCommand::parse_candidates(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_first_boot_has_no_candidates() {
        let command = RestoreCommand {
            operation_id: "launch-i-0123abcd".parse().unwrap(),
            mode: Mode::Launch,
            candidates: vec![],
        };
        let parameters = command.parameters(&"0".repeat(64).parse().unwrap(), 60);
        assert_eq!(parameters[CANDIDATES], ["none"]);
        assert_eq!(RestoreCommand::parse_candidates("none").unwrap(), vec![]);
    }

    #[test]
    fn a_backup_command_is_read_back_from_its_parameters() {
        let command = BackupCommand {
            operation_id: "20261123T021500.000Z".parse().unwrap(),
            backup_id: "20261123T021500.000Z".parse().unwrap(),
            purpose: Purpose::Final,
        };
        let mut parameters = command.parameters(&"0".repeat(64).parse().unwrap(), 60);
        assert_eq!(
            BackupCommand::from_parameters(&parameters).unwrap(),
            command
        );
        parameters.remove(PURPOSE);
        let error = BackupCommand::from_parameters(&parameters).unwrap_err();
        assert_eq!(error.chain(), "a command's parameters: Purpose is missing");
    }
}
