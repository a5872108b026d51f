//! The failure of the agent: a chain of causes, with the exit code that SSM shows.

use std::fmt;

use shared::exit_code::ExitCode;

/// The result of the agent's own functions.
pub type Result<T> = std::result::Result<T, Failure>;

/// A chain of causes, and the documented exit code for it.
#[derive(Debug)]
pub struct Failure {
    /// The exit code of the process.
    pub code: ExitCode,
    /// The chain of causes.
    pub cause: anyhow::Error,
}

impl Failure {
    /// Makes a failure that has only a message.
    pub(crate) fn new(code: ExitCode, message: impl fmt::Display) -> Self {
        Self {
            code,
            cause: anyhow::anyhow!("{message}"),
        }
    }

    /// Makes a failure from an error. The message begins with what failed, and the error's own text follows it.
    pub(crate) fn caused(
        code: ExitCode,
        error: impl Into<anyhow::Error>,
        message: impl fmt::Display,
    ) -> Self {
        Self {
            code,
            cause: error.into().context(message.to_string()),
        }
    }

    /// Puts `context` in front of the message.
    pub(crate) fn context(self, context: impl fmt::Display) -> Self {
        Self {
            code: self.code,
            cause: self.cause.context(context.to_string()),
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

/// Turns any error into a [`Failure`].
pub(crate) trait OrFail<T> {
    /// Adds the exit code and the message. The message begins with what failed, as in "cannot read FILE"; the error's
    /// own text follows it as the cause.
    fn or_fail<C: fmt::Display>(self, code: ExitCode, message: impl FnOnce() -> C) -> Result<T>;
}

impl<T, E: Into<anyhow::Error>> OrFail<T> for std::result::Result<T, E> {
    fn or_fail<C: fmt::Display>(self, code: ExitCode, message: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|error| Failure::caused(code, error, message()))
    }
}
