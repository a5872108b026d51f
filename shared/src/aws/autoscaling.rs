//! EC2 Auto Scaling: protected groups, their members, and the answers to lifecycle hooks.

pub mod launches;

use std::fmt;
use std::time::Duration;

use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::config::Builder;
use aws_sdk_autoscaling::config::retry::RetryConfig;
use aws_sdk_autoscaling::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_autoscaling::types::{AutoScalingGroup, Filter, Instance, RetentionAction};
use time::OffsetDateTime;

use super::{failed, utc};
use crate::error::{Error, Result};
use crate::id::{ApplicationName, InstanceId};

/// The name of the hook in which a new instance waits for its restore.
pub const LAUNCH_HOOK: &str = "rekindle-launch";
/// The name of the hook in which an old instance waits for its final backup.
pub const TERMINATE_HOOK: &str = "rekindle-terminate";
/// The tag that puts a group under protection; its value is the application's name.
pub const APPLICATION_TAG: &str = "rekindle:application";

/// The most groups that one page may have.
const PAGE: i32 = 100;
/// How often a hook's answer is given where it cannot be told whether it was heard.
const COMPLETE_TRIES: u32 = 4;
const COMPLETE_PAUSE: Duration = Duration::from_millis(200);
/// How many pages of a group's activities are read: a launching instance's own is near the top.
const ACTIVITY_PAGES: usize = 3;

/// Defines the lifecycle states from one table of variants and AWS' words.
macro_rules! lifecycle_states {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)*) => {
        /// Where a member of a group stands.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum LifecycleState {
            $($(#[$doc])* $variant,)*
            /// A state that AWS has added since.
            Unknown(String),
        }

        impl LifecycleState {
            /// Every state that has a name here.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns AWS' word.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)*
                    Self::Unknown(word) => word,
                }
            }
        }

        impl From<&str> for LifecycleState {
            fn from(word: &str) -> Self {
                match word {
                    $($word => Self::$variant,)*
                    other => Self::Unknown(other.to_owned()),
                }
            }
        }
    };
}

lifecycle_states! {
    /// Launched, before its hooks.
    Pending = "Pending",
    /// In a launch hook.
    PendingWait = "Pending:Wait",
    /// Past its launch hooks.
    PendingProceed = "Pending:Proceed",
    /// Serving.
    InService = "InService",
    /// Draining, before its terminate hooks.
    Terminating = "Terminating",
    /// In a terminate hook.
    TerminatingWait = "Terminating:Wait",
    /// Past its terminate hooks.
    TerminatingProceed = "Terminating:Proceed",
    /// Kept for an operator, since a terminate hook was abandoned.
    TerminatingRetained = "Terminating:Retained",
    /// Gone.
    Terminated = "Terminated",
    /// Leaving the group alive.
    Detaching = "Detaching",
    /// Out of the group, alive.
    Detached = "Detached",
    /// On its way to standby.
    EnteringStandby = "EnteringStandby",
    /// In the group, out of service.
    Standby = "Standby",
    /// Before the terminate hooks of a root volume's replacement.
    ReplacingRootVolume = "ReplacingRootVolume",
    /// In a terminate hook of a root volume's replacement.
    ReplacingRootVolumeWait = "ReplacingRootVolume:Wait",
    /// Past the terminate hooks of a root volume's replacement.
    ReplacingRootVolumeProceed = "ReplacingRootVolume:Proceed",
    /// With its new root volume, before its launch hooks.
    RootVolumeReplaced = "RootVolumeReplaced",
    /// Entering the warm pool.
    WarmedPending = "Warmed:Pending",
    /// In a launch hook on its way into the warm pool.
    WarmedPendingWait = "Warmed:Pending:Wait",
    /// Past its launch hooks on its way into the warm pool.
    WarmedPendingProceed = "Warmed:Pending:Proceed",
    /// Kept for an operator on its way into the warm pool.
    WarmedPendingRetained = "Warmed:Pending:Retained",
    /// Leaving the warm pool for good.
    WarmedTerminating = "Warmed:Terminating",
    /// In a terminate hook, out of the warm pool.
    WarmedTerminatingWait = "Warmed:Terminating:Wait",
    /// Past its terminate hooks, out of the warm pool.
    WarmedTerminatingProceed = "Warmed:Terminating:Proceed",
    /// Kept for an operator, out of the warm pool.
    WarmedTerminatingRetained = "Warmed:Terminating:Retained",
    /// Gone from the warm pool.
    WarmedTerminated = "Warmed:Terminated",
    /// Stopped in the warm pool.
    WarmedStopped = "Warmed:Stopped",
    /// Running in the warm pool.
    WarmedRunning = "Warmed:Running",
    /// Hibernated in the warm pool.
    WarmedHibernated = "Warmed:Hibernated",
    /// Listed by AWS, not used.
    Quarantined = "Quarantined",
}

impl LifecycleState {
    /// Tells whether a final backup may still come from such a member. A retained instance has had its turn.
    pub fn is_terminating(&self) -> bool {
        matches!(
            self,
            Self::Terminating | Self::TerminatingWait | Self::TerminatingProceed
        )
    }

    /// Tells whether such a member waits for its restore, or on its way into the warm pool.
    pub fn is_in_launch_hook(&self) -> bool {
        matches!(self, Self::PendingWait | Self::WarmedPendingWait)
    }
}

impl fmt::Display for LifecycleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An instance of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The instance.
    pub instance_id: InstanceId,
    /// Where it stands.
    pub state: LifecycleState,
    /// Whether the group holds it to be healthy.
    pub healthy: bool,
}

/// An Auto Scaling group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// The value of its `rekindle:application` tag, as it is; [`Group::application`] reads it.
    pub application_tag: Option<String>,
    /// Its instances, in any state.
    pub members: Vec<Member>,
    /// Whether an instance whose terminate hook is abandoned is kept for an operator.
    pub retains_on_abandon: bool,
    /// Whether the group may launch nothing now: somebody suspended the process.
    pub launches_suspended: bool,
}

impl Group {
    /// Returns the application that the group serves: none where it is not protected. A malformed tag is an error of
    /// this group alone.
    pub fn application(&self) -> Result<Option<ApplicationName>> {
        let Some(tag) = &self.application_tag else {
            return Ok(None);
        };
        let application = tag.parse().map_err(|error| {
            let name = &self.name;
            Error::Refused(format!(
                "correct the tag {APPLICATION_TAG} of the group {name:?}: {error}"
            ))
        })?;
        Ok(Some(application))
    }
}

/// Returns every group that has the tag `rekindle:application`, whatever its value.
pub async fn protected_groups(client: &Client) -> Result<Vec<Group>> {
    let tagged = Filter::builder()
        .name("tag-key")
        .values(APPLICATION_TAG)
        .build();
    let mut pages = client
        .describe_auto_scaling_groups()
        .filters(tagged)
        .into_paginator()
        .page_size(PAGE)
        .items()
        .send();
    let mut groups = Vec::new();
    while let Some(group) = pages.next().await {
        let group = group.map_err(failed("autoscaling:DescribeAutoScalingGroups"))?;
        groups.push(read_group(&group));
    }
    Ok(groups)
}

/// Returns the group with this name.
pub async fn group(client: &Client, name: &str) -> Result<Option<Group>> {
    let described = client
        .describe_auto_scaling_groups()
        .auto_scaling_group_names(name)
        .send()
        .await
        .map_err(failed("autoscaling:DescribeAutoScalingGroups"))?;
    Ok(described.auto_scaling_groups().first().map(read_group))
}

/// Returns the group that an instance belongs to, and where it stands there.
pub async fn membership(
    client: &Client,
    instance: &InstanceId,
) -> Result<Option<(String, LifecycleState)>> {
    let described = client
        .describe_auto_scaling_instances()
        .instance_ids(instance.as_str())
        .send()
        .await
        .map_err(failed("autoscaling:DescribeAutoScalingInstances"))?;
    let details = described.auto_scaling_instances().first();
    Ok(details.and_then(|details| {
        let name = details.auto_scaling_group_name()?.to_owned();
        Some((name, LifecycleState::from(details.lifecycle_state()?)))
    }))
}

/// Returns when the newest launch of an instance began, from what the group recorded of it.
pub async fn launched_at(
    client: &Client,
    group: &str,
    instance: &InstanceId,
) -> Result<Option<OffsetDateTime>> {
    let mut pages = client
        .describe_scaling_activities()
        .auto_scaling_group_name(group)
        .into_paginator()
        .page_size(PAGE)
        .send();
    for _ in 0..ACTIVITY_PAGES {
        let Some(page) = pages.next().await else {
            return Ok(None);
        };
        let page = page.map_err(failed("autoscaling:DescribeScalingActivities"))?;
        // Newest first. "Launching a new EC2 instance: i-…", and in a warm pool's case a few words more.
        let launch = page.activities().iter().find(|activity| {
            let words = activity.description().unwrap_or_default();
            words.starts_with("Launching") && words.contains(instance.as_str())
        });
        if let Some(activity) = launch {
            return Ok(activity.start_time().and_then(utc));
        }
    }
    Ok(None)
}

/// The answer to a lifecycle hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifecycleResult {
    /// Go on.
    Continue,
    /// A launching instance is terminated; a terminating one is kept, where its group says so.
    Abandon,
}

impl LifecycleResult {
    /// Returns AWS' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Continue => "CONTINUE",
            Self::Abandon => "ABANDON",
        }
    }
}

/// What became of an answer to a lifecycle hook, or of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// It was taken.
    Done,
    /// The hook waits no longer: it was answered before, it expired, or the instance is gone.
    AlreadyResolved,
}

/// Answers the hook in which an instance waits. Answering twice is harmless.
///
/// The SDK must not repeat it: whether an answer is the first one decides who tells the operator, and an answer that
/// was lost on its way back would be found given by somebody else.
pub async fn complete(
    client: &Client,
    group: &str,
    hook: &str,
    instance: &InstanceId,
    result: LifecycleResult,
) -> Result<Completion> {
    let mut tries = 1;
    loop {
        let once = Builder::new().retry_config(RetryConfig::disabled());
        let sent = client
            .complete_lifecycle_action()
            .auto_scaling_group_name(group)
            .lifecycle_hook_name(hook)
            .instance_id(instance.as_str())
            .lifecycle_action_result(result.as_str())
            .customize()
            .config_override(once)
            .send()
            .await;
        let error = match sent {
            Ok(_) => return Ok(Completion::Done),
            Err(error) if no_active_action(&error) && tries == 1 => {
                return Ok(Completion::AlreadyResolved);
            }
            Err(error) if no_active_action(&error) => return Ok(Completion::Done),
            Err(error) => failed("autoscaling:CompleteLifecycleAction")(error),
        };
        if !error.retryable() || tries >= COMPLETE_TRIES {
            return Err(error);
        }
        tokio::time::sleep(COMPLETE_PAUSE * tries).await;
        tries += 1;
    }
}

/// Restarts the timeout of the hook in which an instance waits.
pub async fn heartbeat(
    client: &Client,
    group: &str,
    hook: &str,
    instance: &InstanceId,
) -> Result<Completion> {
    let sent = client
        .record_lifecycle_action_heartbeat()
        .auto_scaling_group_name(group)
        .lifecycle_hook_name(hook)
        .instance_id(instance.as_str())
        .send()
        .await;
    match sent {
        Ok(_) => Ok(Completion::Done),
        Err(error) if no_active_action(&error) => Ok(Completion::AlreadyResolved),
        Err(error) => Err(failed("autoscaling:RecordLifecycleActionHeartbeat")(error)),
    }
}

/// Auto Scaling has no error of its own for a hook that waits no longer, only these words. A `ValidationError`
/// of another kind is a mistake of ours and must not pass for an answer.
fn no_active_action<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    let Some(error) = error.as_service_error() else {
        return false;
    };
    error.code() == Some("ValidationError")
        && error
            .message()
            .is_some_and(|words| words.starts_with("No active Lifecycle Action"))
}

fn read_group(group: &AutoScalingGroup) -> Group {
    let tag = group
        .tags()
        .iter()
        .find(|tag| tag.key() == Some(APPLICATION_TAG));
    let policy = group.instance_lifecycle_policy();
    let on_abandon = policy
        .and_then(|policy| policy.retention_triggers())
        .and_then(|triggers| triggers.terminate_hook_abandon());
    Group {
        name: group
            .auto_scaling_group_name()
            .unwrap_or_default()
            .to_owned(),
        application_tag: tag.map(|tag| tag.value().unwrap_or_default().to_owned()),
        members: group.instances().iter().filter_map(read_member).collect(),
        retains_on_abandon: on_abandon == Some(&RetentionAction::Retain),
        launches_suspended: group
            .suspended_processes()
            .iter()
            .any(|process| process.process_name() == Some(launches::LAUNCH)),
    }
}

/// An id that is not an instance's cannot be acted upon, so such a member is left out.
fn read_member(instance: &Instance) -> Option<Member> {
    Some(Member {
        instance_id: instance.instance_id()?.parse().ok()?,
        state: LifecycleState::from(instance.lifecycle_state()?.as_str()),
        healthy: instance
            .health_status()
            .is_some_and(|status| status.eq_ignore_ascii_case("healthy")),
    })
}

#[cfg(test)]
mod tests;
