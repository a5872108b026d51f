//! Each failure is said once: one ERROR line and one metric.
//!
//! An error that a retry may cure is returned to Lambda, whose runtime logs it; every other one is logged here.

use shared::env::Config;
use shared::id::ApplicationName;
use shared::{Error, Result, metrics};
use time::OffsetDateTime;
use tracing::error;

/// The failures of one invocation that works on several applications: one application's must not stop the others.
#[derive(Debug)]
pub(crate) struct Failures<'a> {
    config: &'a Config,
    retry: Option<(Option<ApplicationName>, Error)>,
    count: usize,
}

impl<'a> Failures<'a> {
    /// Starts without failures.
    pub(crate) fn new(config: &'a Config) -> Self {
        Self {
            config,
            retry: None,
            count: 0,
        }
    }

    /// Takes a failure. The first that a retry may cure is kept for [`Failures::finish`].
    pub(crate) fn add(&mut self, application: Option<&ApplicationName>, error: Error) {
        self.count += 1;
        if error.retryable() && self.retry.is_none() {
            self.retry = Some((application.cloned(), error));
        } else {
            report(self.config, application, error.kind(), &error.chain());
        }
    }

    /// Takes a value, or the failure in its place.
    pub(crate) fn keep<T>(
        &mut self,
        application: Option<&ApplicationName>,
        result: Result<T>,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(application, error);
                None
            }
        }
    }

    /// Returns how many failures there were, or the one for which Lambda should try the event again.
    pub(crate) fn finish(self) -> Result<usize> {
        match self.retry {
            Some((_, error)) => Err(error),
            None => Ok(self.count),
        }
    }
}

/// Says that something failed. `kind` is the word of an error or of an exit code.
pub(crate) fn report(
    config: &Config,
    application: Option<&ApplicationName>,
    kind: &str,
    message: &str,
) {
    let application_name = application.map_or("-", ApplicationName::as_str);
    error!(application = application_name, kind, "{message}");
    metrics::failed(
        &config.metric_namespace,
        OffsetDateTime::now_utc(),
        application,
        kind,
    );
}
