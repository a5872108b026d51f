//! Errors of AWS's APIs, and how a test plans them for Auto Scaling, SSM, STS and the Invoke API.
//!
//! [`PlannedFaults`] has two ways: [`plan`](PlannedFaults::plan) fails the next calls of one operation, and
//! [`on_call`](PlannedFaults::on_call) decides at each call. S3 has faults of its own: see
//! [`S3Fault`](super::s3::S3Fault). For all faults that a test can inject, see [the stand-in](super).

use std::fmt;
use std::sync::{Arc, Mutex};

use crate::lock::lock;

/// An error answer of an AWS API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// AWS's error code. SDKs match on it.
    pub code: String,
    /// The message.
    pub message: String,
}

impl ApiError {
    /// Returns an error with HTTP status 400.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::with_status(400, code, message)
    }

    /// Returns an error with another HTTP status.
    pub fn with_status(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
        }
    }

    /// Returns Auto Scaling's usual error, `ValidationError`.
    pub fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationError", message)
    }

    /// Returns the error for too many requests, with the code of this service.
    pub fn throttled(service: &str) -> Self {
        let code = if service == "autoscaling" {
            "Throttling"
        } else {
            "ThrottlingException"
        };
        Self::new(code, "Rate exceeded")
    }
}

/// The result of one API operation.
pub type ApiResult<T> = Result<T, ApiError>;

/// An error that the next calls of an operation return.
#[derive(Debug, Clone)]
struct Planned {
    operation: String,
    error: ApiError,
    times: usize,
}

/// One call of an API other than S3's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiCall {
    /// The service, such as `ssm`.
    pub service: String,
    /// The operation, such as `SendCommand`; empty if the request names none.
    pub operation: String,
    /// The access key that signed the request.
    pub access_key: String,
}

type Hook = Arc<dyn Fn(&ApiCall) -> Option<ApiError> + Send + Sync>;

/// The errors that a test has planned.
///
/// ```no_run
/// # use rekindle_tests::standin::{StandIn, fault::ApiError};
/// # fn inject(standin: &StandIn) {
/// standin.faults().plan("SendCommand", ApiError::throttled("ssm"), 2);
/// # }
/// ```
#[derive(Default)]
pub struct PlannedFaults {
    planned: Mutex<Vec<Planned>>,
    hook: Mutex<Option<Hook>>,
}

impl fmt::Debug for PlannedFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlannedFaults")
            .field("planned", &self.planned)
            .finish_non_exhaustive()
    }
}

impl PlannedFaults {
    /// Makes the next `times` calls of an operation, such as `SendCommand`, return this error.
    pub fn plan(&self, operation: &str, error: ApiError, times: usize) {
        lock(&self.planned).push(Planned {
            operation: operation.to_owned(),
            error,
            times,
        });
    }

    /// Calls this hook before each call. If it returns an error, the call fails with it.
    ///
    /// There is one hook: a new one replaces the old one.
    pub fn on_call(&self, hook: impl Fn(&ApiCall) -> Option<ApiError> + Send + Sync + 'static) {
        *lock(&self.hook) = Some(Arc::new(hook));
    }

    /// Removes the hook. Errors from [`Self::plan`] stay.
    pub fn clear_hook(&self) {
        *lock(&self.hook) = None;
    }

    /// Returns the hook's error for a call, if there is one.
    pub(crate) fn ask(&self, call: &ApiCall) -> ApiResult<()> {
        let hook = lock(&self.hook).clone();
        // Called without the lock, because the hook may call the stand-in.
        match hook.and_then(|hook| hook(call)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Returns the planned error for a call of this operation, if there is one, and counts the call.
    pub fn take(&self, operation: &str) -> ApiResult<()> {
        let mut planned = lock(&self.planned);
        let next = planned
            .iter_mut()
            .find(|planned| planned.operation == operation && planned.times > 0);
        match next {
            Some(planned) => {
                planned.times -= 1;
                Err(planned.error.clone())
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planned_error_is_returned_as_often_as_planned() {
        let faults = PlannedFaults::default();
        faults.plan("SendCommand", ApiError::throttled("ssm"), 2);
        assert_eq!(faults.take("ListCommands"), Ok(()));
        assert_eq!(
            faults.take("SendCommand").unwrap_err().code,
            "ThrottlingException"
        );
        assert!(faults.take("SendCommand").is_err());
        assert_eq!(faults.take("SendCommand"), Ok(()));
    }
}
