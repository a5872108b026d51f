//! From an event to the instances it concerns. Every event is a hint, and ends in the same `advance`.

use std::time::{Duration, SystemTime};

use futures_util::{StreamExt as _, stream};
use lambda_runtime::LambdaEvent;
use serde::Serialize;
use serde_json::Value;
use shared::aws::Aws;
use shared::aws::autoscaling::{self, Group, LAUNCH_HOOK, LifecycleState};
use shared::env::Config;
use shared::event::{Event, LifecycleAction};
use shared::id::InstanceId;
use shared::metrics::{self, Metric};
use shared::{Error, Result};
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{error, field, info, warn};

use crate::act::{self, Outcome};
use crate::decide::{self, Decision, Facts};
use crate::gather::{self, Launch};
use crate::in_place;

/// Between two looks at an instance that is not ready: nobody is served while it waits.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two looks at one that has been waiting for longer than [`SOON`].
const LONG_PAUSE: Duration = Duration::from_secs(5);
/// A healthy launch registers within this time, and a final backup is mostly over.
const SOON: Duration = Duration::from_mins(5);
/// What is left of the invocation when waiting ends, so that it ends by itself and not in the midst of a call.
const RESERVE: Duration = Duration::from_secs(30);
/// How many instances a sweep advances at once.
const CONCURRENCY: usize = 8;

/// What an invocation did for one instance.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Advanced {
    instance_id: InstanceId,
    outcome: Outcome,
}

/// Handles one event. An error is one that a retry may cure, or an event that cannot be used; every other failure
/// is told in the log and counted, and asking again would only repeat it.
pub(crate) async fn handle(
    aws: &Aws,
    config: &Config,
    event: LambdaEvent<Value>,
) -> Result<Vec<Advanced>> {
    let deadline = event.context.deadline();
    let event = Event::parse(event.payload).inspect_err(|error| count(config, error))?;
    let instance = concerned(&event).cloned();
    dispatch(aws, config, event, deadline)
        .await
        .or_else(|error| {
            count(config, &error);
            if error.retryable() || matches!(error, Error::Event(_)) {
                // The runtime logs the error itself, and does not know of whom it speaks.
                if let Some(instance_id) = instance {
                    warn!(%instance_id, "not advanced; a retryable event is tried again");
                }
                return Err(error);
            }
            tell(&error, instance.as_ref());
            Ok(Vec::new())
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
) -> Result<Vec<Advanced>> {
    match event {
        Event::InstanceLaunching(action) => {
            expect_equal(
                "LifecycleHookName",
                &action.lifecycle_hook_name,
                LAUNCH_HOOK,
            )?;
            Ok(vec![launch(aws, config, &action, deadline).await?])
        }
        Event::CommandFinished(command) => {
            let document = &config.restore_document;
            expect_equal("document-name", &command.document_name, document)?;
            let advanced = once(aws, config, command.instance_id.clone()).await?;
            // An instance that waits in no hook was restored by an operator's wish, or long ago.
            if advanced.outcome == Outcome::AlreadyResolved {
                in_place::tell(aws, config, &command).await?;
            }
            Ok(vec![advanced])
        }
        Event::Sweep | Event::Tick { .. } => sweep(aws, config).await,
        Event::InstanceTerminating(_) => Err(Error::Event(
            "the terminate hook is the backup function's; send this event there".to_owned(),
        )),
        Event::Request(_) => Err(Error::Event(
            "requests on backups are the backup function's; send this event there".to_owned(),
        )),
    }
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

/// Advances every instance that waits in the launch hook of a protected group, and every restore in place. One that
/// fails keeps none of the others from being advanced.
async fn sweep(aws: &Aws, config: &Config) -> Result<Vec<Advanced>> {
    let groups = autoscaling::protected_groups(&aws.autoscaling).await?;
    measure_suspensions(config, &groups);
    let members = groups.iter().flat_map(|group| &group.members);
    let waiting = members.filter(|member| {
        matches!(
            member.state,
            LifecycleState::PendingWait | LifecycleState::WarmedPendingWait
        )
    });
    let passes = waiting.map(async |member| {
        let instance = member.instance_id.clone();
        (Some(instance.clone()), once(aws, config, instance).await)
    });
    let mut passes: Vec<Pass> = stream::iter(passes)
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await;
    passes.extend(restores_in_place(aws, config, &groups).await);
    let mut advanced = Vec::new();
    let mut to_retry = None;
    for (instance, pass) in passes {
        match pass {
            Ok(pass) => advanced.push(pass),
            // The first one is this invocation's error, which `handle` counts and the runtime logs.
            Err(error) if error.retryable() && to_retry.is_none() => {
                let instance_id = instance.as_ref().map(field::display);
                warn!(instance_id, "not advanced; this sweep is tried again");
                to_retry = Some(error);
            }
            Err(error) => {
                count(config, &error);
                tell(&error, instance.as_ref());
            }
        }
    }
    to_retry.map_or(Ok(advanced), Err)
}

/// What came of one instance in a sweep; none where it is not even known of which.
type Pass = (Option<InstanceId>, Result<Advanced>);

async fn restores_in_place(aws: &Aws, config: &Config, groups: &[Group]) -> Vec<Pass> {
    let now = OffsetDateTime::now_utc();
    let asked = match in_place::asked(aws, config, groups, now).await {
        Ok(asked) => asked,
        Err(error) => return vec![(None, Err(error))],
    };
    let mut passes = Vec::new();
    for asked in asked {
        let sent = in_place::follow(aws, config, &asked, now).await;
        let instance_id = asked.instance_id;
        let advanced = sent.map(|sent| {
            sent.then(|| Advanced {
                instance_id: instance_id.clone(),
                outcome: Outcome::SentInPlace,
            })
        });
        passes.extend(advanced.transpose().map(|it| (Some(instance_id), it)));
    }
    passes
}

/// Measures which stacks could not be given a new node now. An operator may suspend launches and forget it.
fn measure_suspensions(config: &Config, groups: &[Group]) {
    let (namespace, now) = (&config.metric_namespace, OffsetDateTime::now_utc());
    for group in groups.iter().filter(|group| group.launches_suspended) {
        if let Ok(Some(stack)) = group.stack() {
            metrics::measured(namespace, now, &stack, &[(Metric::LaunchesSuspended, 1.0)]);
        }
    }
}

async fn once(aws: &Aws, config: &Config, instance_id: InstanceId) -> Result<Advanced> {
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
        stack = facts.stack.as_ref().ok().map(field::display),
        state = facts.standing.as_str(),
        waited_seconds = facts.waited_seconds(),
        command_id = decision.command_id().map(field::display),
        predecessor = facts.predecessor.as_ref().map(|it| field::display(it.instance_id())),
        "decided"
    );
}

fn tell(error: &Error, instance: Option<&InstanceId>) {
    error!(
        kind = error.kind(),
        instance_id = instance.map(field::display),
        reason = error.chain(),
        "gave up; the next sweep looks again"
    );
}

fn count(config: &Config, error: &Error) {
    let now = OffsetDateTime::now_utc();
    metrics::failed(&config.metric_namespace, now, None, error.kind());
}

#[cfg(test)]
mod tests;
