//! An error as AWS answers it: a code, a message and an HTTP status.

use std::fmt;
use std::sync::{Arc, Mutex};

use crate::lock::lock;

/// An error answer of an AWS API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// AWS's code, which SDKs match on.
    pub code: String,
    /// AWS's sentence.
    pub message: String,
}

impl ApiError {
    /// Refuses a request with HTTP status 400.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::with_status(400, code, message)
    }

    /// Answers with another HTTP status.
    pub fn with_status(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
        }
    }

    /// Refuses a request as Auto Scaling refuses almost everything.
    pub fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationError", message)
    }

    /// Answers that the caller asks too often, in the way of this service.
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

/// An error that the next calls of an operation answer with, whatever they ask.
#[derive(Debug, Clone)]
struct Planned {
    operation: String,
    fault: ApiError,
    times: usize,
}

/// One call of an API other than S3's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiCall {
    /// The service, such as `ssm`.
    pub service: String,
    /// The operation, such as `SendCommand`; empty where the request names none.
    pub operation: String,
    /// The access key that the request is signed with.
    pub access_key: String,
}

type Hook = Arc<dyn Fn(&ApiCall) -> Option<ApiError> + Send + Sync>;

/// The errors that a test has planned, by operation.
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
    /// Lets the next `times` calls of `operation` (such as `SendCommand`) fail with `fault`.
    pub fn plan(&self, operation: &str, fault: ApiError, times: usize) {
        lock(&self.planned).push(Planned {
            operation: operation.to_owned(),
            fault,
            times,
        });
    }

    /// Asks this hook before each call, whether it is to fail.
    pub fn on_call(&self, hook: impl Fn(&ApiCall) -> Option<ApiError> + Send + Sync + 'static) {
        *lock(&self.hook) = Some(Arc::new(hook));
    }

    /// Lets every call be answered again, as far as nothing else is planned.
    pub fn clear_hook(&self) {
        *lock(&self.hook) = None;
    }

    /// Asks the hook about a call.
    pub(crate) fn ask(&self, call: &ApiCall) -> ApiResult<()> {
        let hook = lock(&self.hook).clone();
        // Called without the lock, since it may well ask this stand-in for something.
        match hook.and_then(|hook| hook(call)) {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    /// Returns the error that this call is to answer with, if one is planned, and counts it.
    pub fn take(&self, operation: &str) -> ApiResult<()> {
        let mut planned = lock(&self.planned);
        let next = planned
            .iter_mut()
            .find(|planned| planned.operation == operation && planned.times > 0);
        match next {
            Some(planned) => {
                planned.times -= 1;
                Err(planned.fault.clone())
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planned_fault_is_answered_as_often_as_planned() {
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
