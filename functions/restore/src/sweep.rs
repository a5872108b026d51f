//! The one-minute sweep: for every protected group, it reconciles what a lost event left unfinished, and starts what is
//! due.

use futures_util::{StreamExt as _, stream};
use shared::Result;
use shared::aws::autoscaling::{self, Group};
use shared::function::answer::Handled;
use shared::function::context::Context;
use shared::function::failure::Failures;
use shared::function::metrics::{self, Metric};
use shared::id::{ApplicationName, Subject};
use time::OffsetDateTime;

use crate::answer::Answer;
use crate::{breaker, in_place, launch};

/// The most instances or breakers that a sweep handles concurrently.
const CONCURRENCY: usize = 8;

/// Half-opens breakers that are due, advances every instance in a launch hook, and sends in-place restores that are
/// due. The failure of one does not stop the others.
pub(crate) async fn sweep(context: &Context) -> Result<Answer> {
    let groups = autoscaling::protected_groups(&context.aws.autoscaling).await?;
    let mut failures = Failures::new(context);
    measure_suspensions(context, &groups);
    watch_breakers(context, &groups, &mut failures).await;
    let mut handled = advance_launches(context, &groups, &mut failures).await;
    handled.extend(send_in_place_restores(context, &groups, &mut failures).await);
    let failures = failures.finish()?;
    Ok(Answer::Sweep { handled, failures })
}

/// Prints the metric `LaunchesSuspended` of each application with suspended launches. An operator may suspend launches
/// and forget to resume them.
fn measure_suspensions(context: &Context, groups: &[Group]) {
    let (namespace, now) = (&context.config.metric_namespace, OffsetDateTime::now_utc());
    for group in groups.iter().filter(|group| group.launches_suspended) {
        if let Some(application) = group.valid_application() {
            let suspended = [(Metric::LaunchesSuspended, 1.0)];
            metrics::measured(namespace, now, &application, &suspended);
        }
    }
}

fn subject<'a>(group: &'a Group, application: Option<&'a ApplicationName>) -> Subject<'a> {
    Subject {
        application,
        group: Some(&group.name),
        ..Subject::default()
    }
}

async fn watch_breakers(context: &Context, groups: &[Group], failures: &mut Failures<'_>) {
    let watched = groups.iter().filter(|group| breaker::is_watched(group));
    let checks = watched.filter_map(|group| {
        let application = group.valid_application()?;
        Some(async move {
            let checked = breaker::watch(context, group, &application).await;
            (group, application, checked)
        })
    });
    let mut checks = stream::iter(checks).buffer_unordered(CONCURRENCY);
    while let Some((group, application, checked)) = checks.next().await {
        let subject = subject(group, Some(&application));
        failures.keep(subject, "the breaker was not checked", checked);
    }
}

async fn advance_launches(
    context: &Context,
    groups: &[Group],
    failures: &mut Failures<'_>,
) -> Vec<Handled> {
    let members = groups
        .iter()
        .flat_map(|group| group.members.iter().map(move |member| (group, member)));
    let waiting = members.filter(|(_, member)| member.state.is_in_launch_hook());
    let passes = waiting.map(async |(group, member)| {
        let instance = &member.instance_id;
        (
            group,
            instance,
            launch::advance_once(context, instance).await,
        )
    });
    let mut passes = stream::iter(passes).buffer_unordered(CONCURRENCY);
    let mut handled = Vec::new();
    while let Some((group, instance, pass)) = passes.next().await {
        let application = group.valid_application();
        let subject = Subject {
            instance_id: Some(instance),
            ..subject(group, application.as_ref())
        };
        let advanced = failures.keep(subject, "the launch was not advanced", pass);
        handled.extend(advanced.map(|(_, handled)| handled));
    }
    handled
}

async fn send_in_place_restores(
    context: &Context,
    groups: &[Group],
    failures: &mut Failures<'_>,
) -> Vec<Handled> {
    let now = OffsetDateTime::now_utc();
    let requested = in_place::requested(context, groups, now).await;
    let message = "in-place restores were not checked";
    let requested = failures.keep(Subject::default(), message, requested);
    let mut handled = Vec::new();
    for request in requested.unwrap_or_default() {
        let sent = in_place::send_if_due(context, &request, now).await;
        let message = "the in-place restore was not sent";
        let sent = failures.keep(request.subject(), message, sent).flatten();
        handled.extend(sent.map(|command_id| {
            let (application, instance) = (Some(&request.application), &request.instance_id);
            Handled {
                command_id: Some(command_id),
                ..Handled::new(application, instance, "sent-in-place-restore")
            }
        }));
    }
    handled
}
