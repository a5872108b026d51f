//! An error as AWS answers it: a code, a message and an HTTP status.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// An error answer of an AWS API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The HTTP status.
    pub status: u16,
    /// AWS's code, which SDKs match on.
    pub code: String,
    /// AWS's sentence.
    pub message: String,
}

impl Fault {
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
pub type Answer<T> = Result<T, Fault>;

/// An error that the next calls of an operation answer with, whatever they ask.
#[derive(Debug, Clone)]
struct Planned {
    operation: String,
    fault: Fault,
    times: usize,
}

/// The errors that a test has planned, by operation.
#[derive(Debug, Default)]
pub struct PlannedFaults {
    planned: Mutex<Vec<Planned>>,
}

impl PlannedFaults {
    /// Lets the next `times` calls of `operation` (such as `SendCommand`) fail with `fault`.
    pub fn plan(&self, operation: &str, fault: Fault, times: usize) {
        lock(&self.planned).push(Planned {
            operation: operation.to_owned(),
            fault,
            times,
        });
    }

    /// Returns the error that this call is to answer with, if one is planned, and counts it.
    pub fn take(&self, operation: &str) -> Answer<()> {
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

/// Locks state that stays meaningful when a thread panicked while holding it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planned_fault_is_answered_as_often_as_planned() {
        let faults = PlannedFaults::default();
        faults.plan("SendCommand", Fault::throttled("ssm"), 2);
        assert_eq!(faults.take("ListCommands"), Ok(()));
        assert_eq!(
            faults.take("SendCommand").unwrap_err().code,
            "ThrottlingException"
        );
        assert!(faults.take("SendCommand").is_err());
        assert_eq!(faults.take("SendCommand"), Ok(()));
    }
}
