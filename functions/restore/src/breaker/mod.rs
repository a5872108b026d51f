//! The circuit breaker of a group's launches: applies the rules of `decide` to AWS.
//!
//! The order is always: record, suspension, answer to the hook. Each step may be repeated. If a pass is cut off between
//! two steps, the next pass over the instance or the next sweep continues. Only the check for a late suspension is not
//! repeated; if it is missed, the alarm `LaunchesSuspended` stays on.

pub mod decide;

use futures_util::try_join;
use shared::aws::autoscaling::{self, Group, launches};
use shared::aws::breaker::{self, Breaker};
use shared::function::context::Context;
use shared::function::failure;
use shared::function::metrics::{self, Metric};
use shared::id::{ApplicationName, InstanceId, Subject};
use shared::kind::Kind;
use shared::{Error, Result};
use time::OffsetDateTime;
use tracing::{info, warn};

use self::decide::{
    FailedLaunch, OnFailure, OnSuccess, OnSweep, WatchedGroup, on_failure, on_success, on_sweep,
    wait,
};

/// A launch that is about to end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Launch<'a> {
    /// When its facts were gathered.
    pub(crate) now: OffsetDateTime,
    /// The application.
    pub(crate) application: &'a ApplicationName,
    /// The group.
    pub(crate) group: &'a str,
    /// The instance.
    pub(crate) instance_id: &'a InstanceId,
    /// Whether the instance can wait in its hook for a retry of the breaker's calls.
    pub(crate) can_wait: bool,
}

impl<'a> Launch<'a> {
    fn subject(&self) -> Subject<'a> {
        Subject {
            application: Some(self.application),
            group: Some(self.group),
            instance_id: Some(self.instance_id),
            ..Subject::default()
        }
    }
}

/// Whether the group launches another instance after an abandoned one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextLaunch {
    /// The group launches another one.
    Allowed,
    /// The group's launches are suspended.
    Suspended,
}

/// Trips the breaker before a launch is abandoned, if the rules require it, and returns whether the group launches
/// again. `permanent` is whether the next launch would fail for the same reason.
///
/// # Errors
/// A retryable error while the instance can wait; meanwhile the group launches nothing. Any other error is recorded,
/// and the instance is abandoned without the breaker: otherwise its hook would expire without a log line.
pub(crate) async fn before_abandoning(
    context: &Context,
    launch: Launch<'_>,
    permanent: bool,
) -> Result<NextLaunch> {
    match on_failed_launch(context, launch, permanent).await {
        Err(error) if error.retryable() && launch.can_wait => Err(error),
        Err(error) => {
            let message = "the breaker failed, so the group launches again";
            record_failure(context, launch.subject(), &error, message);
            Ok(NextLaunch::Allowed)
        }
        Ok(next) => Ok(next),
    }
}

async fn on_failed_launch(
    context: &Context,
    launch: Launch<'_>,
    permanent: bool,
) -> Result<NextLaunch> {
    let Some(facts) = failed_launch(context, launch, permanent).await? else {
        return Ok(NextLaunch::Allowed);
    };
    let (decision, failures, message, next) = match on_failure(&facts) {
        OnFailure::Trip { failures, breaker } => {
            return trip(context, launch, failures, &breaker).await;
        }
        OnFailure::Relaunch { failures } => {
            let message = "the breaker stays closed";
            ("relaunch", Some(failures), message, NextLaunch::Allowed)
        }
        OnFailure::AlreadyTripped => {
            let message = "Rekindle suspended the launches before";
            ("already-tripped", None, message, NextLaunch::Suspended)
        }
        OnFailure::SuspendedBySomebodyElse => {
            let message =
                "the launches are suspended, but not by Rekindle, so it will not resume them";
            let decision = "suspended-by-somebody-else";
            (decision, None, message, NextLaunch::Suspended)
        }
    };
    info!(
        decision,
        application = %launch.application,
        group = launch.group,
        instance_id = %launch.instance_id,
        failures,
        "{message}"
    );
    Ok(next)
}

/// Returns the facts about a failed launch, or `None` if the group is gone.
async fn failed_launch(
    context: &Context,
    launch: Launch<'_>,
    permanent: bool,
) -> Result<Option<FailedLaunch>> {
    let (client, group) = (&context.aws.autoscaling, launch.group);
    let (described, launches) = try_join!(
        autoscaling::group(client, group),
        launches::recent(client, group),
    )?;
    let Some(described) = described else {
        return Ok(None);
    };
    Ok(Some(FailedLaunch {
        now: launch.now,
        instance_id: launch.instance_id.clone(),
        permanent,
        launches,
        suspended: described.launches_suspended,
        // Read after the group: then every suspension by Rekindle that the group shows has its record.
        breaker: breaker::read(&context.aws.ssm, launch.application, group).await?,
    }))
}

async fn trip(
    context: &Context,
    launch: Launch<'_>,
    failures: u32,
    breaker: &Breaker,
) -> Result<NextLaunch> {
    let (application, group) = (launch.application, launch.group);
    breaker::write(&context.aws.ssm, application, group, breaker, launch.now).await?;
    launches::suspend(&context.aws.autoscaling, group).await?;
    log_tripped(context, launch, failures, breaker);
    let checked = resume_if_closed_meanwhile(context, group, application).await;
    Ok(checked.unwrap_or_else(|error| {
        let message = "the launches were suspended, but the check for a breaker that was closed meanwhile failed";
        record_failure(context, launch.subject(), &error, message);
        NextLaunch::Suspended
    }))
}

/// Resumes the launches if the breaker is not open any more, and returns whether the group launches again. A throttled
/// suspension may take effect after an operator's resume or after a success. Then no open record marks the suspension as
/// Rekindle's, so nothing else would resume the launches.
async fn resume_if_closed_meanwhile(
    context: &Context,
    group: &str,
    application: &ApplicationName,
) -> Result<NextLaunch> {
    let known = breaker::read(&context.aws.ssm, application, group).await?;
    if matches!(known, Some(Breaker::Open { .. })) {
        return Ok(NextLaunch::Suspended);
    }
    launches::resume(&context.aws.autoscaling, group).await?;
    info!(decision = "resume-late-suspension", %application, group, "the breaker was closed meanwhile");
    Ok(NextLaunch::Allowed)
}

/// Closes the breaker before a restored instance is admitted. If this is cut off before the record, the next pass
/// repeats it, because the instance still waits. A failure is recorded and does not delay the instance.
pub(crate) async fn before_admitting(context: &Context, launch: Launch<'_>) {
    if let Err(error) = close(context, launch).await {
        let message = "the breaker was not closed, so the next failed launch trips it at once";
        record_failure(context, launch.subject(), &error, message);
    }
}

async fn close(context: &Context, launch: Launch<'_>) -> Result<()> {
    let Launch {
        now,
        application,
        group,
        instance_id,
        ..
    } = launch;
    let known = breaker::read(&context.aws.ssm, application, group).await?;
    if let OnSuccess::Close { resume, breaker } = on_success(known.as_ref(), now) {
        write_not_open(context, application, group, &breaker, resume, now).await?;
        info!(decision = "close-breaker", %application, group, %instance_id, "a launch succeeded");
    }
    Ok(())
}

/// Writes a record that is not open. If `resume`, resumes the group's launches before the record and again after it,
/// because a concurrent pass may suspend them. If that pass suspends them before the record, the second call here
/// resumes them. If that pass suspends them after the record, it reads the record and resumes them itself.
pub(crate) async fn write_not_open(
    context: &Context,
    application: &ApplicationName,
    group: &str,
    breaker: &Breaker,
    resume: bool,
    now: OffsetDateTime,
) -> Result<()> {
    let client = &context.aws.autoscaling;
    if resume {
        launches::resume(client, group).await?;
    }
    breaker::write(&context.aws.ssm, application, group, breaker, now).await?;
    if resume {
        launches::resume(client, group).await?;
    }
    Ok(())
}

/// Returns whether a sweep has to read the group's breaker. If a member is in service and launches are not suspended,
/// there is nothing to do; this saves the calls for up to a thousand groups.
pub(crate) fn is_watched(group: &Group) -> bool {
    group.launches_suspended || group.in_service().next().is_none()
}

/// Half-opens a group's breaker if its wait is over, and records if somebody else resumed the launches.
pub(crate) async fn watch(
    context: &Context,
    group: &Group,
    application: &ApplicationName,
) -> Result<()> {
    let now = OffsetDateTime::now_utc();
    let waiting = group
        .members
        .iter()
        .filter(|it| it.state.is_in_launch_hook());
    let watched = WatchedGroup {
        now,
        waiting: waiting.map(|it| it.instance_id.clone()).collect(),
        suspended: group.launches_suspended,
        breaker: breaker::read(&context.aws.ssm, application, &group.name).await?,
    };
    let group = &group.name;
    match on_sweep(&watched) {
        OnSweep::Nothing => {}
        OnSweep::HalfOpen(breaker) => {
            write_not_open(context, application, group, &breaker, true, now).await?;
            info!(decision = "half-open-breaker", %application, group, "resumed the launches to try one");
        }
        OnSweep::RecordResumed(breaker) => {
            write_not_open(context, application, group, &breaker, false, now).await?;
            info!(
                decision = "record-resumed", %application, group,
                "somebody resumed the launches; the next one is on trial"
            );
        }
    }
    Ok(())
}

/// Logs that the launches are suspended, and prints the metric. The ERROR line of the abandoned instance has the
/// reason.
fn log_tripped(context: &Context, launch: Launch<'_>, failures: u32, breaker: &Breaker) {
    let Launch {
        now,
        application,
        group,
        instance_id,
        ..
    } = launch;
    if let Breaker::Open {
        trips, tripped_at, ..
    } = breaker
    {
        warn!(
            decision = "trip-breaker", %application, group, %instance_id, failures, trips, %tripped_at,
            wait_seconds = wait(*trips).as_secs(),
            remedy = "Fix the cause of the failed launch, then send the request resume. Without the request, Rekindle tries a launch after the wait.",
            "suspended the group's launches"
        );
    }
    let suspended = [(Metric::LaunchesSuspended, 1.0)];
    metrics::measured(
        &context.config.metric_namespace,
        now,
        application,
        &suspended,
    );
}

fn record_failure(context: &Context, subject: Subject<'_>, error: &Error, message: &str) {
    failure::record(
        context,
        subject,
        Kind::BreakerFailed,
        message,
        &error.chain(),
    );
}
