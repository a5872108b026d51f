//! The description of a stand-in: its settings and their defaults.

use std::path::PathBuf;

use serde_json::Value;

use super::deploy::Binaries;
use crate::repository::project;

/// The description of a stand-in.
#[derive(Debug, Clone)]
pub struct StandInBuilder {
    pub(super) template: PathBuf,
    pub(super) bucket: String,
    pub(super) binaries: Option<Binaries>,
    pub(super) with_functions: bool,
    pub(super) documents: Vec<(String, Value)>,
    pub(super) region: String,
    pub(super) time_scale: f64,
    pub(super) execution_scale: f64,
    pub(super) registration_delay: f64,
    pub(super) stale: f64,
    pub(super) drain: f64,
    pub(super) port: u16,
    pub(super) echo: Option<PathBuf>,
    pub(super) log_level: String,
    pub(super) parent: PathBuf,
}

impl Default for StandInBuilder {
    fn default() -> Self {
        Self {
            template: project().join("template.yaml"),
            bucket: "rekindle-backups".to_owned(),
            binaries: None,
            with_functions: true,
            documents: Vec::new(),
            region: "eu-central-1".to_owned(),
            time_scale: 60.0,
            execution_scale: 1.0,
            registration_delay: 20.0,
            stale: 300.0,
            drain: f64::from(shared::budget::DEREGISTRATION_DELAY),
            port: 0,
            echo: None,
            log_level: "info".to_owned(),
            parent: std::env::temp_dir(),
        }
    }
}

impl StandInBuilder {
    /// Uses other programs than those of this build, such as release packages.
    #[must_use]
    pub fn binaries(mut self, binaries: Binaries) -> Self {
        self.binaries = Some(binaries);
        self
    }

    /// Runs no functions, so that the test answers the hooks.
    #[must_use]
    pub fn without_functions(mut self) -> Self {
        self.with_functions = false;
        self
    }

    /// Adds an SSM document to those of the template.
    #[must_use]
    pub fn document(mut self, name: &str, content: Value) -> Self {
        self.documents.push((name.to_owned(), content));
        self
    }

    /// Shortens AWS's own waits by this factor. The default is 60.
    #[must_use]
    pub fn time_scale(mut self, scale: f64) -> Self {
        self.time_scale = scale;
        self
    }

    /// Shortens the documents' `timeoutSeconds` by this factor. The default is 1, because nodes do real work.
    #[must_use]
    pub fn execution_scale(mut self, scale: f64) -> Self {
        self.execution_scale = scale;
        self
    }

    /// Sets the time from an instance's launch until its SSM agent has registered, in seconds of AWS's time.
    #[must_use]
    pub fn registration_delay(mut self, seconds: f64) -> Self {
        self.registration_delay = seconds;
        self
    }

    /// Sets how long after its last ping an SSM agent counts as `ConnectionLost`, in seconds of AWS's time.
    #[must_use]
    pub fn stale(mut self, seconds: f64) -> Self {
        self.stale = seconds;
        self
    }

    /// Sets the load balancer's deregistration delay, in seconds of AWS's time.
    #[must_use]
    pub fn drain(mut self, seconds: f64) -> Self {
        self.drain = seconds;
        self
    }

    /// Listens on this port of 127.0.0.1. The default is any free port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Also appends the functions' output to a file.
    #[must_use]
    pub fn echo(mut self, file: impl Into<PathBuf>) -> Self {
        self.echo = Some(file.into());
        self
    }

    /// Stores S3's objects and the nodes' disks below this directory. The default is the directory for temporary files.
    #[must_use]
    pub fn below(mut self, directory: impl Into<PathBuf>) -> Self {
        self.parent = directory.into();
        self
    }
}
