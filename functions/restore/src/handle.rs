//! From an event to the instances it concerns. Every event is a hint, and ends in the same `advance`.

use std::time::{Duration, SystemTime};

use lambda_runtime::LambdaEvent;
use serde::Serialize;
use serde_json::Value;
use shared::aws::Aws;
use shared::aws::autoscaling::LAUNCH_HOOK;
use shared::env::Config;
use shared::event::{Event, LifecycleAction, Request};
use shared::id::{ApplicationName, InstanceId};
use shared::metrics;
use shared::{Error, Result};
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{error, field, info, warn};

use crate::act::{self, Outcome};
use crate::decide::{self, Decision, Facts};
use crate::gather::{self, Launch};
use crate::in_place;
use crate::request::{self, Resumed};
use crate::sweep;

/// Between two looks at an instance that is not ready: nobody is served while it waits.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two looks at one that has been waiting for longer than [`SOON`].
const LONG_PAUSE: Duration = Duration::from_secs(5);
/// A healthy launch registers within this time, and a final backup is mostly over.
const SOON: Duration = Duration::from_mins(5);
/// What is left of the invocation when waiting ends, so that it ends by itself and not in the midst of a call.
const RESERVE: Duration = Duration::from_secs(30);

/// What an invocation did for one instance.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Advanced {
    pub(crate) instance_id: InstanceId,
    pub(crate) outcome: Outcome,
}

/// What an invocation answers: a list for AWS' events, and an object for an operator's request.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Answer {
    /// What was done for each instance.
    Advanced(Vec<Advanced>),
    /// What a request to resume came to.
    Resumed(Resumed),
    /// Nothing was done for the operator, for a reason that a retry does not change. It is in the log, too.
    Refused {
        /// The word of the failure metric.
        kind: &'static str,
        /// The reason.
        message: String,
    },
}

/// Handles one event. An error is one that a retry may cure, or an event that cannot be used; every other failure
/// is told in the log and counted, and asking again would only repeat it.
pub(crate) async fn handle(
    aws: &Aws,
    config: &Config,
    event: LambdaEvent<Value>,
) -> Result<Answer> {
    let deadline = event.context.deadline();
    let event = Event::parse(event.payload).inspect_err(|error| count(config, None, error))?;
    let (instance, application) = (concerned(&event).cloned(), event.application().cloned());
    dispatch(aws, config, event, deadline)
        .await
        .or_else(|error| {
            count(config, application.as_ref(), &error);
            if error.retryable() || matches!(error, Error::Event(_)) {
                // The runtime logs the error itself, and does not know of whom it speaks.
                if let Some(instance_id) = instance {
                    warn!(%instance_id, "not advanced; a retryable event is tried again");
                }
                return Err(error);
            }
            if let Some(application) = application {
                let (kind, message) = (error.kind(), error.chain());
                error!(kind, %application, reason = message, "refused an operator's request");
                return Ok(Answer::Refused { kind, message });
            }
            tell(&error, instance.as_ref(), None);
            Ok(Answer::Advanced(Vec::new()))
        })
}

fn concerned(event: &Event) -> Option<&InstanceId> {
    match event {
        Event::InstanceLaunching(action) | Event::InstanceTerminating(action) => {
            Some(&action.instance_id)
        }
        Event::CommandFinished(command) => Some(&command.instance_id),
        Event::Tick { .. } | Event::Sweep | Event::Request(_) => None,
    }
}

async fn dispatch(
    aws: &Aws,
    config: &Config,
    event: Event,
    deadline: SystemTime,
) -> Result<Answer> {
    let advanced = match event {
        Event::InstanceLaunching(action) => {
            expect_equal(
                "LifecycleHookName",
                &action.lifecycle_hook_name,
                LAUNCH_HOOK,
            )?;
            vec![launch(aws, config, &action, deadline).await?]
        }
        Event::CommandFinished(command) => {
            let document = &config.restore_document;
            expect_equal("document-name", &command.document_name, document)?;
            let advanced = once(aws, config, command.instance_id.clone()).await?;
            // An instance that waits in no hook was restored by an operator's wish, or long ago.
            if advanced.outcome == Outcome::AlreadyResolved {
                in_place::tell(aws, config, &command).await?;
            }
            vec![advanced]
        }
        Event::Sweep | Event::Tick { .. } => sweep::sweep(aws, config).await?,
        Event::Request(Request::Resume { application }) => {
            return request::resume(aws, application).await.map(Answer::Resumed);
        }
        Event::InstanceTerminating(_) => {
            let message = "the terminate hook is the backup function's; send this event there";
            return Err(Error::Event(message.to_owned()));
        }
        Event::Request(_) => {
            let message = "requests on backups are the backup function's; send this event there";
            return Err(Error::Event(message.to_owned()));
        }
    };
    Ok(Answer::Advanced(advanced))
}

fn expect_equal(field: &str, found: &str, expected: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Event(format!(
        "`{field}` is {found:?}; the restore function handles {expected:?} alone"
    )))
}

/// Advances a launching instance until its restore is on its way, for as long as this invocation may wait. What
/// comes later is the finished command's event, or the sweep's.
async fn launch(
    aws: &Aws,
    config: &Config,
    action: &LifecycleAction,
    deadline: SystemTime,
) -> Result<Advanced> {
    let instance = &action.instance_id;
    let replaced = action.replaces_root_volume();
    let began = Instant::now();
    let mut seen = Seen::default();
    loop {
        let outcome = advance(aws, config, instance, replaced, &mut seen).await?;
        let pause = if began.elapsed() < SOON {
            PAUSE
        } else {
            LONG_PAUSE
        };
        // Under `cargo lambda watch` the deadline lies in 1970.
        let left = deadline
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        if !outcome.is_waiting() || left < RESERVE + pause {
            let instance_id = instance.clone();
            return Ok(Advanced {
                instance_id,
                outcome,
            });
        }
        tokio::time::sleep(pause).await;
    }
}

/// Advances an instance by one look at it.
pub(crate) async fn once(aws: &Aws, config: &Config, instance_id: InstanceId) -> Result<Advanced> {
    let outcome = advance(aws, config, &instance_id, false, &mut Seen::default()).await?;
    Ok(Advanced {
        instance_id,
        outcome,
    })
}

/// What one invocation remembers of an instance from look to look.
#[derive(Debug, Default)]
struct Seen {
    /// Its launch, which stays the same.
    launch: Option<Launch>,
    /// The last decision, which is not logged again for as long as it stays the same.
    decision: Option<Decision>,
}

/// Takes an instance as far as it can be taken now: facts, decision, act.
async fn advance(
    aws: &Aws,
    config: &Config,
    instance: &InstanceId,
    root_volume_replaced: bool,
    seen: &mut Seen,
) -> Result<Outcome> {
    let launch = &mut seen.launch;
    let facts = gather::facts(aws, config, instance, root_volume_replaced, launch).await?;
    let decision = decide::instance(&facts);
    if seen.decision.as_ref() != Some(&decision) {
        log(&facts, &decision);
        seen.decision = Some(decision.clone());
    }
    act::on(aws, config, &facts, decision).await
}

fn log(facts: &Facts, decision: &Decision) {
    info!(
        decision = decision.name(),
        instance_id = %facts.instance_id,
        group = facts.group,
        application = facts.application.as_ref().ok().map(field::display),
        state = facts.standing.as_str(),
        waited_seconds = facts.waited_seconds(),
        command_id = decision.command_id().map(field::display),
        predecessor = facts.predecessor.as_ref().map(|it| field::display(it.instance_id())),
        "decided"
    );
}

/// Says that something is given up, which no retry of the same event changes.
pub(crate) fn tell(
    error: &Error,
    instance: Option<&InstanceId>,
    application: Option<&ApplicationName>,
) {
    error!(
        kind = error.kind(),
        instance_id = instance.map(field::display),
        application = application.map(field::display),
        reason = error.chain(),
        "gave up; the next sweep looks again"
    );
}

/// Counts a failure, where it is known of which application.
pub(crate) fn count(config: &Config, application: Option<&ApplicationName>, error: &Error) {
    let now = OffsetDateTime::now_utc();
    metrics::failed(&config.metric_namespace, now, application, error.kind());
}

#[cfg(test)]
mod tests;
