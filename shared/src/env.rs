//! Every environment variable of the functions, read once, in `main`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// The bucket of backups, manifests and the agent.
pub const BUCKET: &str = "REKINDLE_BUCKET";
/// The name of the SSM document that backs an instance up.
pub const BACKUP_DOCUMENT: &str = "REKINDLE_BACKUP_DOCUMENT";
/// The name of the SSM document that restores an instance.
pub const RESTORE_DOCUMENT: &str = "REKINDLE_RESTORE_DOCUMENT";
/// The agent's binary, as the layer brings it; its SHA-256 lies beside it with the ending `.sha256`.
pub const AGENT: &str = "REKINDLE_AGENT";
/// The CloudWatch namespace of the metrics.
pub const METRIC_NAMESPACE: &str = "REKINDLE_METRIC_NAMESPACE";

/// The functions' settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// [`BUCKET`].
    pub bucket: String,
    /// [`BACKUP_DOCUMENT`].
    pub backup_document: String,
    /// [`RESTORE_DOCUMENT`].
    pub restore_document: String,
    /// [`AGENT`].
    pub agent: PathBuf,
    /// [`METRIC_NAMESPACE`].
    pub metric_namespace: String,
}

impl Config {
    /// Reads the environment; an error names every variable that is missing or empty, not only the first.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(&std::env::vars().collect())
    }

    fn from_variables(variables: &BTreeMap<String, String>) -> Result<Self> {
        let mut missing = Vec::new();
        let mut read = |name: &'static str| match variables.get(name) {
            Some(value) if !value.is_empty() => value.clone(),
            _ => {
                missing.push(name);
                String::new()
            }
        };
        let config = Self {
            bucket: read(BUCKET),
            backup_document: read(BACKUP_DOCUMENT),
            restore_document: read(RESTORE_DOCUMENT),
            agent: read(AGENT).into(),
            metric_namespace: read(METRIC_NAMESPACE),
        };
        if missing.is_empty() {
            return Ok(config);
        }
        Err(Error::Config(format!(
            "set {}; template.yaml has their values",
            missing.join(", ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_missing_variables_are_named_at_once() {
        let variables = [(BUCKET, "b"), (AGENT, ""), (METRIC_NAMESPACE, "Rekindle")];
        let variables = variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let error = Config::from_variables(&variables).unwrap_err();
        assert_eq!(
            error.chain(),
            "the environment is incomplete: set REKINDLE_BACKUP_DOCUMENT, REKINDLE_RESTORE_DOCUMENT, \
             REKINDLE_AGENT; template.yaml has their values"
        );
    }
}
