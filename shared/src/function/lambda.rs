//! The main loop of a function's process: it sets up the log, the settings and the clients, then handles event after
//! event.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use lambda_runtime::{LambdaEvent, service_fn};
use serde::Serialize;
use serde_json::Value;

use super::answer::Refused;
use super::context::Context;
use super::env::Config;
use super::failure;
use super::log;
use crate::aws::{Aws, Endpoints};
use crate::error::Result;
use crate::event::Event;
use crate::id::Subject;
use crate::kind::Kind;

/// The time at which Lambda ends an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(Option<SystemTime>);

impl Deadline {
    /// Returns the deadline from Lambda's milliseconds since 1970. `cargo lambda watch` sends one in 1970, which counts
    /// as unknown.
    pub fn at(milliseconds: u64) -> Self {
        let day = Duration::from_hours(24);
        let since_1970 = Duration::from_millis(milliseconds);
        Self((since_1970 > day).then(|| SystemTime::UNIX_EPOCH + since_1970))
    }

    /// Returns the time between `now` and the deadline, zero after it, or `None` if the deadline is unknown.
    pub fn remaining(self, now: SystemTime) -> Option<Duration> {
        let deadline = self.0?;
        Some(deadline.duration_since(now).unwrap_or_default())
    }
}

/// Serves Lambda until it ends the process. If an environment variable is missing or invalid, the process ends at once.
///
/// `handle` is called for each event; [`handle_event`] describes its errors.
pub async fn serve<A: Serialize + From<Refused>>(
    handle: impl AsyncFn(&Context, Event, Deadline) -> Result<A>,
) -> ExitCode {
    log::init();
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => {
            let (kind, reason) = (error.kind(), error.chain());
            let message = "the function cannot start";
            failure::log(
                Subject::default(),
                kind.as_str(),
                message,
                &reason,
                kind.remedy(),
            );
            return ExitCode::FAILURE;
        }
    };
    let context = Context::new(Aws::connect(Endpoints::from_env()), config);
    let handler = service_fn(async |event| handle_event(&context, event, &handle).await);
    match lambda_runtime::run(handler).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let reason = error.to_string();
            let remedy = "Wait: Lambda starts the process again. If the failures continue, check the AWS Health Dashboard.";
            let message = "the Lambda runtime ended with an error";
            failure::log(
                Subject::default(),
                Kind::AwsUnavailable.as_str(),
                message,
                &reason,
                remedy,
            );
            ExitCode::FAILURE
        }
    }
}

/// Handles one event. Each failure is recorded once.
///
/// # Errors
/// A retryable error, so that Lambda retries the event, or [`crate::Error::Event`] if the event is invalid. Every other
/// failure is the answer [`Refused`]: a retry would not change it.
pub async fn handle_event<A: From<Refused>>(
    context: &Context,
    event: LambdaEvent<Value>,
    handle: &impl AsyncFn(&Context, Event, Deadline) -> Result<A>,
) -> Result<A> {
    let deadline = Deadline::at(event.context.deadline);
    let event = Event::parse(event.payload).map_err(|error| {
        error.recorded(context, Subject::default(), "the event was not handled")
    })?;
    let concerned = event.clone();
    match handle(context, event, deadline).await {
        Ok(answer) => Ok(answer),
        Err(error) => {
            let error = error.recorded(context, concerned.subject(), "the event was not handled");
            if error.retryable() || error.is_unusable_event() {
                return Err(error);
            }
            let kind = error.kind();
            Ok(A::from(Refused {
                application: concerned.application().cloned(),
                kind: kind.as_str(),
                reason: error.chain(),
                remedy: kind.remedy(),
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_in_1970_is_unknown() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_400_100_250);
        assert_eq!(Deadline::at(0).remaining(now), None);
        let deadline = Deadline::at(1_795_400_160_250);
        assert_eq!(deadline.remaining(now), Some(Duration::from_mins(1)));
        let late = now + Duration::from_hours(1);
        assert_eq!(deadline.remaining(late), Some(Duration::ZERO));
    }
}
