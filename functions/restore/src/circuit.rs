//! What the rules of `decide::breaker` mean for AWS: the record first, then the suspension, then the answer.
//!
//! Each step may be repeated. What is cut off between two of them is taken up by the next pass over the instance, or
//! by the next sweep; but for a look whether a suspension came too late, of which an alarm is left.

use futures_util::try_join;
use shared::aws::Aws;
use shared::aws::autoscaling::{self, Group, LifecycleState, launches};
use shared::aws::breaker::{self, Breaker};
use shared::env::Config;
use shared::id::ApplicationName;
use shared::metrics::{self, Metric};
use shared::{Error, Result};
use time::OffsetDateTime;
use tracing::{error, info, warn};

use crate::decide::Facts;
use crate::decide::breaker::{
    FailedLaunch, OnFailure, OnSuccess, OnSweep, Watched, on_failure, on_success, on_sweep, wait,
};
use crate::reason::Reason;

/// What to do while the breaker does not work.
const SUSPEND_BY_HAND: &str = "Look at the restore function's role, at the group's tag and at the parameter \
    /rekindle/<application>/breaker; suspend the group's process Launch by hand while launches fail.";
/// What to do about a suspension that may be nobody's.
const RESUME_BY_HAND: &str = "If the alarm LaunchesSuspended stays on and the parameter /rekindle/<application>/breaker says \
    that the breaker is closed, resume the group's process Launch by hand.";

/// What comes after an abandoned launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The group launches another instance.
    Replaced,
    /// It may not.
    Nothing,
}

/// Trips the breaker where a launch that is to be abandoned makes it necessary.
///
/// An error is one that a retry may cure while the instance waits, so that meanwhile nothing is launched. Any other is
/// told, each time, and the instance is abandoned all the same: an expired hook would come to that, in silence.
pub(crate) async fn before_abandoning(
    aws: &Aws,
    config: &Config,
    facts: &Facts,
    reason: &Reason,
) -> Result<Next> {
    // Nothing is abandoned in a group without an application.
    let Ok(application) = &facts.application else {
        return Ok(Next::Replaced);
    };
    match try_to_trip(aws, config, facts, application, reason).await {
        Err(error) if error.retryable() && !facts.breaker_patience_is_over() => Err(error),
        Err(error) => {
            tell_failed(
                config,
                facts,
                &error,
                SUSPEND_BY_HAND,
                "the breaker failed, so the group launches again whatever fails",
            );
            Ok(Next::Replaced)
        }
        Ok(next) => Ok(next),
    }
}

async fn try_to_trip(
    aws: &Aws,
    config: &Config,
    facts: &Facts,
    application: &ApplicationName,
    reason: &Reason,
) -> Result<Next> {
    let (client, group) = (&aws.autoscaling, &facts.group);
    let (described, launches) = try_join!(
        autoscaling::group(client, group),
        launches::recent(client, group),
    )?;
    let Some(described) = described else {
        return Ok(Next::Replaced);
    };
    let failed = FailedLaunch {
        now: facts.now,
        instance_id: facts.instance_id.clone(),
        permanent: reason.permanent(),
        launches,
        suspended: described.launches_suspended,
        // Read last: a suspension of ours that is seen has its record.
        breaker: breaker::read(&aws.ssm, application, group).await?,
    };
    match on_failure(&failed) {
        OnFailure::Relaunch { failures } => {
            info!(decision = "relaunch", instance_id = %facts.instance_id, group, %application, failures, "the breaker stays closed");
            return Ok(Next::Replaced);
        }
        OnFailure::Trip { failures, breaker } => {
            breaker::write(&aws.ssm, application, group, &breaker, facts.now).await?;
            launches::suspend(client, group).await?;
            tell_tripped(config, facts, application, failures, &breaker);
            match take_back_if_late(aws, group, application).await {
                Ok(true) => return Ok(Next::Replaced),
                Ok(false) => {}
                Err(error) => tell_failed(
                    config,
                    facts,
                    &error,
                    RESUME_BY_HAND,
                    "the launches were suspended, and it could not be seen whether the breaker was closed meanwhile",
                ),
            }
        }
        OnFailure::AlreadyTripped => {
            info!(decision = "already-tripped", instance_id = %facts.instance_id, group, %application, "Rekindle suspended the group's launches before");
        }
        OnFailure::SuspendedBySomebodyElse => {
            info!(decision = "suspended-by-somebody-else", instance_id = %facts.instance_id, group, %application, "the group's launches are suspended, and Rekindle will not resume them");
        }
    }
    Ok(Next::Nothing)
}

/// Resumes the launches again where the breaker is not open any more: a suspension that was throttled may come after an
/// operator's resume, or after a success, and nobody would ever take back what no record calls Rekindle's. Where this is
/// cut off, the alarm about suspended launches stays on.
async fn take_back_if_late(aws: &Aws, group: &str, application: &ApplicationName) -> Result<bool> {
    let known = breaker::read(&aws.ssm, application, group).await?;
    let late = !matches!(known, Some(Breaker::Open { .. }));
    if late {
        launches::resume(&aws.autoscaling, group).await?;
        info!(decision = "take-back-suspension", group, %application, "the breaker was closed meanwhile");
    }
    Ok(late)
}

/// Closes the breaker before a restored instance is let into service: what is cut off before the record is done again by
/// the next pass, since the instance still waits. Its service does not wait for a breaker that fails.
pub(crate) async fn before_continuing(aws: &Aws, config: &Config, facts: &Facts) {
    let Ok(application) = &facts.application else {
        return;
    };
    if let Err(error) = try_to_close(aws, facts, application).await {
        tell_failed(
            config,
            facts,
            &error,
            SUSPEND_BY_HAND,
            "the breaker was not closed, so the next failure counts as one after a trial",
        );
    }
}

async fn try_to_close(aws: &Aws, facts: &Facts, application: &ApplicationName) -> Result<()> {
    let group = &facts.group;
    let known = breaker::read(&aws.ssm, application, group).await?;
    if let OnSuccess::Close { resume, breaker } = on_success(known.as_ref(), facts.now) {
        record(aws, application, group, &breaker, resume, facts.now).await?;
        info!(decision = "close-breaker", instance_id = %facts.instance_id, group, %application, "a launch succeeded");
    }
    Ok(())
}

/// Records that the breaker is not open any more, and resumes the group's launches where `resume` says so: before it, and
/// once more after. A pass that suspends them at this moment does so after the record, and takes it back itself; or before
/// it, and the second resumption does.
pub(crate) async fn record(
    aws: &Aws,
    application: &ApplicationName,
    group: &str,
    breaker: &Breaker,
    resume: bool,
    now: OffsetDateTime,
) -> Result<()> {
    if resume {
        launches::resume(&aws.autoscaling, group).await?;
    }
    breaker::write(&aws.ssm, application, group, breaker, now).await?;
    if resume {
        launches::resume(&aws.autoscaling, group).await?;
    }
    Ok(())
}

/// Tells whether a group's breaker is worth a look in every sweep: a group that serves and may launch has nothing
/// that would have to be done now, and there may be a thousand of them.
pub(crate) fn is_watched(group: &Group) -> bool {
    let serves = |state: &LifecycleState| *state == LifecycleState::InService;
    group.launches_suspended || !group.members.iter().any(|member| serves(&member.state))
}

/// Half-opens a group's breaker where it is time to.
pub(crate) async fn watch(aws: &Aws, group: &Group, application: &ApplicationName) -> Result<()> {
    let now = OffsetDateTime::now_utc();
    let waiting = group
        .members
        .iter()
        .filter(|it| it.state.is_in_launch_hook());
    let watched = Watched {
        now,
        waiting: waiting.map(|it| it.instance_id.clone()).collect(),
        suspended: group.launches_suspended,
        breaker: breaker::read(&aws.ssm, application, &group.name).await?,
    };
    let group = &group.name;
    match on_sweep(&watched) {
        OnSweep::Nothing => {}
        OnSweep::HalfOpen(breaker) => {
            record(aws, application, group, &breaker, true, now).await?;
            info!(decision = "half-open-breaker", group, %application, "resumed the group's launches, to try one");
        }
        OnSweep::NoteResumed(breaker) => {
            record(aws, application, group, &breaker, false, now).await?;
            info!(decision = "note-resumed", group, %application, "the group's launches were resumed; the next one is on trial");
        }
    }
    Ok(())
}

/// Says that launches are suspended now. Why, the line of the abandoned instance says.
fn tell_tripped(
    config: &Config,
    facts: &Facts,
    application: &ApplicationName,
    failures: u32,
    breaker: &Breaker,
) {
    if let Breaker::Open {
        trips, tripped_at, ..
    } = breaker
    {
        warn!(
            decision = "trip-breaker", instance_id = %facts.instance_id, group = facts.group, %application, failures, trips,
            %tripped_at, wait_seconds = wait(*trips).as_secs(),
            remedy = "Remedy why the launch failed, then send the resume event; without it a launch is tried when the wait is over.",
            "suspended the group's launches"
        );
    }
    let suspended = [(Metric::LaunchesSuspended, 1.0)];
    metrics::measured(&config.metric_namespace, facts.now, application, &suspended);
}

fn tell_failed(config: &Config, facts: &Facts, error: &Error, remedy: &str, message: &str) {
    let kind = "BreakerFailed";
    let application = facts.application.as_ref().ok();
    error!(
        kind, instance_id = %facts.instance_id, group = facts.group, application = application.map(tracing::field::display),
        reason = error.chain(), remedy, "{message}"
    );
    metrics::failed(&config.metric_namespace, facts.now, application, kind);
}
