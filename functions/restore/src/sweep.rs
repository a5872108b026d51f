//! The minute sweep: what a lost event left behind, and what is due by now, in every protected group.

use futures_util::{StreamExt as _, stream};
use shared::aws::Aws;
use shared::aws::autoscaling::{self, Group};
use shared::env::Config;
use shared::id::{ApplicationName, InstanceId};
use shared::metrics::{self, Metric};
use shared::{Error, Result};
use time::OffsetDateTime;
use tracing::{field, warn};

use crate::act::Outcome;
use crate::handle::{Advanced, count, once, tell};
use crate::{circuit, in_place};

/// How many instances or breakers a sweep looks after at once.
const CONCURRENCY: usize = 8;

/// Looks after the breakers of protected groups, after every instance that waits in the launch hook of one, and after
/// every restore in place. One that fails keeps none of the others from being advanced.
pub(crate) async fn sweep(aws: &Aws, config: &Config) -> Result<Vec<Advanced>> {
    let groups = autoscaling::protected_groups(&aws.autoscaling).await?;
    measure_suspensions(config, &groups);
    let mut to_retry = watch_breakers(aws, config, &groups).await;
    let members = groups.iter().flat_map(|group| &group.members);
    let waiting = members.filter(|member| member.state.is_in_launch_hook());
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
                count(config, None, &error);
                tell(&error, instance.as_ref(), None);
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

/// Half-opens what is due. Returns the first error that a retry may cure, and tells every other.
async fn watch_breakers(aws: &Aws, config: &Config, groups: &[Group]) -> Option<Error> {
    let watched = groups.iter().filter(|group| circuit::is_watched(group));
    let looks = watched.filter_map(|group| {
        let application = group.application().ok()??;
        Some(async move {
            let look = circuit::watch(aws, group, &application).await;
            (application, look)
        })
    });
    let looks: Vec<(ApplicationName, Result<()>)> = stream::iter(looks)
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await;
    let mut to_retry = None;
    for (application, look) in looks {
        match look {
            Ok(()) => {}
            Err(error) if error.retryable() && to_retry.is_none() => {
                warn!(%application, "its breaker was not looked after; this sweep is tried again");
                to_retry = Some(error);
            }
            Err(error) => {
                count(config, Some(&application), &error);
                tell(&error, None, Some(&application));
            }
        }
    }
    to_retry
}

/// Measures which applications could not be given a new node now. An operator may suspend launches and forget it.
fn measure_suspensions(config: &Config, groups: &[Group]) {
    let (namespace, now) = (&config.metric_namespace, OffsetDateTime::now_utc());
    for group in groups.iter().filter(|group| group.launches_suspended) {
        if let Ok(Some(application)) = group.application() {
            metrics::measured(
                namespace,
                now,
                &application,
                &[(Metric::LaunchesSuspended, 1.0)],
            );
        }
    }
}
