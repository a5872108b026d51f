//! A failure that knows its exit code: what the agent reports, and what SSM shows.

use std::fmt;

use shared::report::ExitCode;

/// What the agent's own functions return.
pub type Result<T> = std::result::Result<T, Failure>;

/// A chain of causes and the documented exit code that it comes to.
#[derive(Debug)]
pub struct Failure {
    /// What the process exits with.
    pub code: ExitCode,
    /// Why.
    pub cause: anyhow::Error,
}

impl Failure {
    /// Fails with a sentence.
    pub(crate) fn new(code: ExitCode, message: impl fmt::Display) -> Self {
        Self {
            code,
            cause: anyhow::anyhow!("{message}"),
        }
    }

    /// Adds what was being done, in front of the causes.
    pub(crate) fn context(self, doing: impl fmt::Display) -> Self {
        Self {
            code: self.code,
            cause: self.cause.context(doing.to_string()),
        }
    }

    /// Returns the whole chain of causes in one line.
    pub(crate) fn chain(&self) -> String {
        format!("{:#}", self.cause)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:#}", self.code, self.cause)
    }
}

/// Gives an error its exit code and says what was being done.
pub(crate) trait OrFail<T> {
    /// Fails with `code`; `doing` becomes the first words of the message.
    fn or_fail<C: fmt::Display>(self, code: ExitCode, doing: impl FnOnce() -> C) -> Result<T>;
}

impl<T, E: Into<anyhow::Error>> OrFail<T> for std::result::Result<T, E> {
    fn or_fail<C: fmt::Display>(self, code: ExitCode, doing: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|error| Failure {
            code,
            cause: error.into().context(doing().to_string()),
        })
    }
}
