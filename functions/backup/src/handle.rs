//! What is done about each event: gather the facts, decide, act.

use std::time::{Duration, SystemTime};

use lambda_runtime::LambdaEvent;
use serde_json::Value;
use shared::event::{CommandStatus, Event};
use shared::{Error, Result, metrics};
use time::OffsetDateTime;

use crate::failures::report;
use crate::function::Function;
use crate::outcome::{CaughtUp, Outcome};
use crate::{catch_up, request, settle, terminate, tick};

/// Handles one invocation. An `Err` asks Lambda to try again, or says that the event itself is unusable; what no
/// retry can change is an outcome.
pub(crate) async fn handle(function: &Function, event: LambdaEvent<Value>) -> Result<Outcome> {
    let remaining = remaining(event.context.deadline, SystemTime::now());
    let mut application = None;
    let outcome = match Event::parse(event.payload) {
        Ok(event) => {
            application = event.application().cloned();
            on_event(function, event, remaining).await
        }
        Err(error) => Err(error),
    };
    match outcome {
        Err(error) if error.retryable() || matches!(error, Error::Event(_)) => {
            let (now, namespace) = (OffsetDateTime::now_utc(), &function.config.metric_namespace);
            // The runtime logs the error itself.
            metrics::failed(namespace, now, application.as_ref(), error.kind());
            Err(error)
        }
        Err(error) => {
            report(
                &function.config,
                application.as_ref(),
                error.kind(),
                &error.chain(),
            );
            Ok(Outcome::Refused {
                kind: error.kind().to_owned(),
                message: error.chain(),
            })
        }
        Ok(outcome) => Ok(outcome),
    }
}

async fn on_event(
    function: &Function,
    event: Event,
    remaining: Option<Duration>,
) -> Result<Outcome> {
    let now = OffsetDateTime::now_utc();
    match event {
        Event::Tick { scheduled } => tick::on_tick(function, scheduled, now).await,
        Event::Sweep => catch_up::on_sweep(function, now).await,
        Event::CommandFinished(status) => on_finished(function, &status).await.map(Outcome::Done),
        Event::InstanceTerminating(action) => terminate::on_event(function, &action, remaining)
            .await
            .map(Outcome::Done),
        Event::InstanceLaunching(action) => Err(Error::Event(format!(
            "the launch of {} concerns the restore function: correct the rule's target",
            action.instance_id
        ))),
        Event::Request(request) => request::on_request(function, request, now).await,
    }
}

async fn on_finished(function: &Function, status: &CommandStatus) -> Result<CaughtUp> {
    if status.document_name != function.config.backup_document {
        return Err(Error::Event(format!(
            "`document-name` is {:?}: this function sees to {:?} alone, correct the rule",
            status.document_name, function.config.backup_document
        )));
    }
    settle::on_event(function, &status.command_id, &status.instance_id).await
}

/// Returns what is left of this invocation. `cargo lambda watch` gives a deadline in 1970: then it is not known.
fn remaining(deadline: u64, now: SystemTime) -> Option<Duration> {
    let deadline = SystemTime::UNIX_EPOCH + Duration::from_millis(deadline);
    deadline.duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_in_1970_does_not_cut_an_invocation_short() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_400_100_250);
        assert_eq!(remaining(0, now), None);
        assert_eq!(
            remaining(1_795_400_160_250, now),
            Some(Duration::from_mins(1))
        );
    }
}
