//! The error type of `shared` and of the functions.

use std::error::Error as StdError;
use std::fmt;

use lambda_runtime::Diagnostic;

use crate::kind::Kind;

/// The result of a call that fails with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Every failure of a function. A variant's text does not include its source: [`Error::chain`] joins the texts.
#[derive(thiserror::Error)]
pub enum Error {
    /// Environment variables are missing or invalid. The text names each of them.
    #[error("the environment is incomplete: {0}")]
    Config(String),
    /// An event has an unknown type, or lacks a field.
    #[error("unusable event: {0}")]
    Event(String),
    /// An AWS call failed.
    #[error("{operation} failed ({code})")]
    Aws {
        /// The API operation, as IAM writes it.
        operation: &'static str,
        /// The service's error code, or a code of this crate if the service did not answer, such as `Timeout`.
        code: String,
        /// Whether the same call may succeed later.
        retryable: bool,
        /// The SDK's own error.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A report of a node, an object in S3 or a parameter in SSM does not have the agreed content.
    #[error("{object}: {problem}")]
    Contract {
        /// The name of the report, object or parameter.
        object: String,
        /// What is wrong with it, and the action to take.
        problem: String,
    },
    /// The request cannot be carried out for the application, group or instance that it names.
    #[error("refused: {0}")]
    Refused(String),
    /// An error that is recorded already, in an ERROR line and in the metric; see [`crate::function::failure`].
    #[error("{0}")]
    Recorded(Box<Self>),
}

impl Error {
    /// Returns an [`Error::Contract`].
    pub fn contract(object: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Contract {
            object: object.into(),
            problem: problem.into(),
        }
    }

    /// Returns whether a retry of the same event may succeed.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Aws { retryable, .. } => *retryable,
            Self::Recorded(error) => error.retryable(),
            _ => false,
        }
    }

    /// Returns whether the event itself is invalid. Its sender has to be corrected, and a retry is useless.
    pub fn is_unusable_event(&self) -> bool {
        match self {
            Self::Event(_) => true,
            Self::Recorded(error) => error.is_unusable_event(),
            _ => false,
        }
    }

    /// Returns the code of a failed AWS call, or `None` if the error is another one.
    pub fn aws_code(&self) -> Option<&str> {
        match self {
            Self::Aws { code, .. } => Some(code),
            Self::Recorded(error) => error.aws_code(),
            _ => None,
        }
    }

    /// Returns the kind of failure: `error_type` of the Lambda response, and the dimension `Kind` of the metric
    /// `Failures`.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Config(_) => Kind::Config,
            Self::Event(_) => Kind::Event,
            Self::Aws {
                retryable: true, ..
            } => Kind::AwsUnavailable,
            Self::Aws { .. } => Kind::AwsRefused,
            Self::Contract { .. } => Kind::Contract,
            Self::Refused(_) => Kind::Refused,
            Self::Recorded(error) => error.kind(),
        }
    }

    /// Returns the texts of the error and of all its causes in one line.
    pub fn chain(&self) -> String {
        if let Self::Recorded(error) = self {
            return error.chain();
        }
        let mut text = self.to_string();
        let mut source = StdError::source(self);
        while let Some(error) = source {
            let cause = error.to_string();
            // Errors of the SDK repeat their source's text.
            if !text.ends_with(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
            source = error.source();
        }
        text
    }
}

/// The Lambda runtime logs a failed invocation with `{:?}`, so this has the whole chain.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind().as_str(), self.chain())
    }
}

impl From<Error> for Diagnostic {
    fn from(error: Error) -> Self {
        Self {
            error_type: error.kind().as_str().to_owned(),
            error_message: error.chain(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_has_the_whole_chain_and_a_stable_type() {
        let source: Box<dyn StdError + Send + Sync> = "connection reset".into();
        let error = Error::Aws {
            operation: "ssm:SendCommand",
            code: "ThrottlingException".to_owned(),
            retryable: true,
            source,
        };
        let diagnostic = Diagnostic::from(error);
        assert_eq!(diagnostic.error_type, "AwsUnavailable");
        assert_eq!(
            diagnostic.error_message,
            "ssm:SendCommand failed (ThrottlingException): connection reset"
        );
    }
}
