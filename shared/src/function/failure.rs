//! The records of failures: each is one ERROR line in the log, and one count of the metric `Failures`.
//!
//! Fields of the line: `kind`, `reason` and `remedy`, `application` if the failure concerns one, and the ids `group`,
//! `instance_id`, `command_id` and `backup_id` as far as they are known.

use time::OffsetDateTime;
use tracing::{error, field};

use super::context::Context;
use super::metrics;
use crate::error::{Error, Result};
use crate::id::Subject;
use crate::kind::Kind;

/// Writes one ERROR line and counts the failure in the metric. `message` is a short fixed text, `reason` has the
/// details.
pub fn record(context: &Context, subject: Subject<'_>, kind: Kind, message: &str, reason: &str) {
    log(subject, kind.as_str(), message, reason, kind.remedy());
    let (namespace, now) = (&context.config.metric_namespace, OffsetDateTime::now_utc());
    metrics::failed(namespace, now, subject.application, kind.as_str());
}

/// Writes one ERROR line without a metric.
pub(crate) fn log(subject: Subject<'_>, kind: &str, message: &str, reason: &str, remedy: &str) {
    error!(
        application = subject.application.map(field::display),
        group = subject.group,
        instance_id = subject.instance_id.map(field::display),
        command_id = subject.command_id.map(field::display),
        backup_id = subject.backup_id.map(field::display),
        kind,
        reason,
        remedy,
        "{message}"
    );
}

impl Error {
    /// Records this error and returns it as [`Error::Recorded`], so that it is not recorded twice.
    #[must_use]
    pub fn recorded(self, context: &Context, subject: Subject<'_>, message: &str) -> Self {
        if matches!(self, Self::Recorded(_)) {
            return self;
        }
        record(context, subject, self.kind(), message, &self.chain());
        Self::Recorded(Box::new(self))
    }
}

/// Collects the failures of an invocation that handles several applications: one failure does not stop the others.
#[derive(Debug)]
pub struct Failures<'a> {
    context: &'a Context,
    retry: Option<Error>,
    count: usize,
}

impl<'a> Failures<'a> {
    /// Returns an empty collection.
    pub fn new(context: &'a Context) -> Self {
        Self {
            context,
            retry: None,
            count: 0,
        }
    }

    /// Records a failure, and keeps the first retryable one for [`Failures::finish`].
    pub fn add(&mut self, subject: Subject<'_>, message: &str, error: Error) {
        self.count += 1;
        let error = error.recorded(self.context, subject, message);
        if error.retryable() && self.retry.is_none() {
            self.retry = Some(error);
        }
    }

    /// Returns the value of `Ok`. Records an `Err` and returns `None`.
    pub fn keep<T>(&mut self, subject: Subject<'_>, message: &str, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| self.add(subject, message, error))
            .ok()
    }

    /// Returns the number of failures.
    ///
    /// # Errors
    /// The first retryable failure, so that Lambda retries the event.
    pub fn finish(self) -> Result<usize> {
        match self.retry {
            Some(error) => Err(error),
            None => Ok(self.count),
        }
    }
}
