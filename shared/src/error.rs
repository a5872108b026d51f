//! The one error type of `shared` and of the functions, named after the operation that failed.

use std::error::Error as StdError;
use std::fmt;

use lambda_runtime::Diagnostic;

use crate::failure::Kind;

/// What a function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong in a function. Sources are never part of a variant's own text: [`Error::chain`]
/// joins them, once.
#[derive(thiserror::Error)]
pub enum Error {
    /// The environment lacks settings; all of them are named.
    #[error("the environment is incomplete: {0}")]
    Config(String),
    /// An event is not one of those that this system knows, or lacks a field.
    #[error("unusable event: {0}")]
    Event(String),
    /// An AWS call failed.
    #[error("{operation} failed ({code})")]
    Aws {
        /// The API operation, as IAM writes it.
        operation: &'static str,
        /// The service's error code, or what kept the call from being answered.
        code: String,
        /// Whether the same call may succeed later.
        retryable: bool,
        /// The SDK's own error.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Something that a node or an object in S3 says is not what was agreed.
    #[error("{object}: {problem}")]
    Contract {
        /// What was read.
        object: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// The application, group or instance that a request names does not fit the request.
    #[error("refused: {0}")]
    Refused(String),
    /// An error that has its ERROR line and its metric already; see [`crate::failure`].
    #[error("{0}")]
    Recorded(Box<Self>),
}

impl Error {
    /// Says that `object` is not what was agreed.
    pub fn contract(object: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Contract {
            object: object.into(),
            problem: problem.into(),
        }
    }

    /// Tells whether the same event may succeed when it is tried again.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Aws { retryable, .. } => *retryable,
            Self::Recorded(error) => error.retryable(),
            _ => false,
        }
    }

    /// Returns whether the event itself cannot be used, so that its sender has to be corrected.
    pub fn is_unusable_event(&self) -> bool {
        match self {
            Self::Event(_) => true,
            Self::Recorded(error) => error.is_unusable_event(),
            _ => false,
        }
    }

    /// Returns the AWS error code, where AWS answered.
    pub fn aws_code(&self) -> Option<&str> {
        match self {
            Self::Aws { code, .. } => Some(code),
            Self::Recorded(error) => error.aws_code(),
            _ => None,
        }
    }

    /// Returns the kind of failure: `error_type` of the Lambda response, and the dimension `Kind` of the failure metric.
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

    /// Returns the whole chain of causes in one line.
    pub fn chain(&self) -> String {
        if let Self::Recorded(error) = self {
            return error.chain();
        }
        let mut text = self.to_string();
        let mut source = StdError::source(self);
        while let Some(error) = source {
            let cause = error.to_string();
            // The SDK repeats itself from level to level.
            if !text.ends_with(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
            source = error.source();
        }
        text
    }
}

/// The Lambda runtime logs a failed invocation with `{:?}`: that line must carry the whole chain.
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
    fn a_diagnostic_carries_the_whole_chain_and_a_stable_type() {
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
