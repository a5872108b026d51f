//! Every environment variable of the functions. They are read once, at the start of the process.

use std::collections::BTreeMap;
use std::path::PathBuf;

use time::Duration;

use crate::aws::Endpoints;
use crate::error::{Error, Result};

/// The bucket of backups, manifests and the agent.
pub const BUCKET: &str = "REKINDLE_BUCKET";
/// The name of the SSM document that backs up an instance.
pub const BACKUP_DOCUMENT: &str = "REKINDLE_BACKUP_DOCUMENT";
/// The name of the SSM document that restores an instance.
pub const RESTORE_DOCUMENT: &str = "REKINDLE_RESTORE_DOCUMENT";
/// The path of the agent's binary in the layer. The file with the suffix `.sha256` beside it has its SHA-256.
pub const AGENT: &str = "REKINDLE_AGENT";
/// The CloudWatch namespace of the metrics.
pub const METRIC_NAMESPACE: &str = "REKINDLE_METRIC_NAMESPACE";

/// The number of hours for which every backup is kept, at least [`LEAST_HOURS`].
pub const RETAIN_ALL_HOURS: &str = "REKINDLE_RETAIN_ALL_HOURS";
/// The number of days for which the first backup of every hour is kept.
pub const RETAIN_HOURLY_DAYS: &str = "REKINDLE_RETAIN_HOURLY_DAYS";
/// The number of days for which the first backup of every day is kept.
pub const RETAIN_DAILY_DAYS: &str = "REKINDLE_RETAIN_DAILY_DAYS";
/// The number of newest good backups that are kept, however old they are; at least [`LEAST_BACKUPS`].
pub const RETAIN_AT_LEAST: &str = "REKINDLE_RETAIN_AT_LEAST";

/// The smallest value of [`RETAIN_ALL_HOURS`].
pub const LEAST_HOURS: u32 = 48;
/// The smallest value of [`RETAIN_AT_LEAST`]: a restore needs fallbacks.
pub const LEAST_BACKUPS: u32 = 3;

/// How long backups are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The time for which every backup is kept.
    pub all: Duration,
    /// The time for which the first backup of every hour is kept.
    pub hourly: Duration,
    /// The time for which the first backup of every day is kept.
    pub daily: Duration,
    /// The number of newest good backups that are kept, however old they are.
    pub at_least: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            all: Duration::hours(48),
            hourly: Duration::days(7),
            daily: Duration::days(35),
            at_least: 8,
        }
    }
}

impl Retention {
    /// Returns the values of the variables; a missing or empty variable has its default.
    fn from_variables(variables: &BTreeMap<String, String>) -> Result<Self> {
        let number = |name: &'static str, default: u32, least: u32| {
            let text = match variables.get(name) {
                Some(text) if !text.is_empty() => text,
                _ => return Ok(default),
            };
            text.parse()
                .ok()
                .filter(|number| *number >= least)
                .ok_or_else(|| {
                    Error::Config(format!(
                        "{name} is {text:?}; set it to a whole number of at least {least}"
                    ))
                })
        };
        Ok(Self {
            all: Duration::hours(number(RETAIN_ALL_HOURS, 48, LEAST_HOURS)?.into()),
            hourly: Duration::days(number(RETAIN_HOURLY_DAYS, 7, 0)?.into()),
            daily: Duration::days(number(RETAIN_DAILY_DAYS, 35, 0)?.into()),
            at_least: number(RETAIN_AT_LEAST, 8, LEAST_BACKUPS)? as usize,
        })
    }
}

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
    /// [`RETAIN_ALL_HOURS`], [`RETAIN_HOURLY_DAYS`], [`RETAIN_DAILY_DAYS`] and [`RETAIN_AT_LEAST`].
    pub retention: Retention,
}

impl Endpoints {
    /// Returns the values of `AWS_REGION` and `AWS_ENDPOINT_URL`. If the region is missing, the first call fails.
    pub fn from_env() -> Self {
        let variables: BTreeMap<String, String> = std::env::vars().collect();
        let variable = |name| variables.get(name).filter(|it| !it.is_empty()).cloned();
        Self {
            region: variable("AWS_REGION"),
            endpoint: variable("AWS_ENDPOINT_URL"),
        }
    }
}

impl Config {
    /// Returns the settings from the environment.
    ///
    /// # Errors
    /// [`Error::Config`], which names every missing variable, or the first invalid one.
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
            retention: Retention::from_variables(variables)?,
        };
        if missing.is_empty() {
            return Ok(config);
        }
        Err(Error::Config(format!(
            "set {}; template.yaml has the values",
            missing.join(", ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_error_names_all_missing_variables() {
        let variables = [(BUCKET, "b"), (AGENT, ""), (METRIC_NAMESPACE, "Rekindle")];
        let variables = variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let error = Config::from_variables(&variables).unwrap_err();
        assert_eq!(
            error.chain(),
            "the environment is incomplete: set REKINDLE_BACKUP_DOCUMENT, REKINDLE_RESTORE_DOCUMENT, \
             REKINDLE_AGENT; template.yaml has the values"
        );
    }

    #[test]
    fn retention_is_read_from_the_environment_within_its_bounds() {
        let read = |name: &str, value: &str| {
            let variables = [(name.to_owned(), value.to_owned())].into();
            Retention::from_variables(&variables)
        };
        let default = Retention::default();
        assert_eq!(read(RETAIN_DAILY_DAYS, "").unwrap(), default);
        let longer = Retention {
            daily: Duration::days(400),
            ..default
        };
        assert_eq!(read(RETAIN_DAILY_DAYS, "400").unwrap(), longer);
        for (name, value) in [
            (RETAIN_ALL_HOURS, "47"),
            (RETAIN_AT_LEAST, "2"),
            (RETAIN_DAILY_DAYS, "-1"),
            (RETAIN_HOURLY_DAYS, "a week"),
        ] {
            let error = read(name, value).unwrap_err();
            assert!(error.chain().contains(name), "{error:?}");
        }
    }
}
