//! EC2 Auto Scaling: protected groups, their members, and the answers to lifecycle hooks.

pub mod launches;
mod lifecycle_state;

use std::time::Duration;

use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::config::Builder;
use aws_sdk_autoscaling::config::retry::RetryConfig;
use aws_sdk_autoscaling::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_autoscaling::types::{AutoScalingGroup, Filter, Instance, RetentionAction};
use time::OffsetDateTime;

pub use self::lifecycle_state::LifecycleState;
use super::{failed, utc};
use crate::error::{Error, Result};
use crate::id::{ApplicationName, InstanceId};

/// The name of the hook in which a new instance waits for its restore.
pub const LAUNCH_HOOK: &str = "rekindle-launch";
/// The name of the hook in which an old instance waits for its final backup.
pub const TERMINATE_HOOK: &str = "rekindle-terminate";
/// The tag that puts a group under protection; its value is the application's name.
pub const APPLICATION_TAG: &str = "rekindle:application";

/// The process of Auto Scaling that launches instances.
const LAUNCH: &str = "Launch";
/// The most items of one page.
const PAGE: i32 = 100;
/// The most tries to answer a hook while it is unknown whether Auto Scaling received the answer.
const COMPLETE_TRIES: u32 = 4;
/// The pause after the first failed try; each further pause is longer by this time.
const COMPLETE_PAUSE: Duration = Duration::from_millis(200);
/// The most pages of a group's activities that are read: the launch of a launching instance is among the newest.
const ACTIVITY_PAGES: usize = 3;

/// An instance of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The instance.
    pub instance_id: InstanceId,
    /// Its lifecycle state.
    pub state: LifecycleState,
    /// Whether the group counts it as healthy.
    pub healthy: bool,
}

/// An Auto Scaling group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// The value of its tag `rekindle:application`, not validated; see [`Group::application`].
    pub application_tag: Option<String>,
    /// Its instances, in any state.
    pub members: Vec<Member>,
    /// Whether the group keeps an instance for an operator if its terminate hook is abandoned.
    pub retains_on_abandon: bool,
    /// Whether the group's launches are suspended, by Rekindle or by somebody else.
    pub launches_suspended: bool,
}

impl Group {
    /// Returns the application that the group serves, or `None` if the group is not protected.
    ///
    /// # Errors
    /// [`Error::Refused`] if the tag is malformed. This concerns no other group.
    pub fn application(&self) -> Result<Option<ApplicationName>> {
        let Some(tag) = &self.application_tag else {
            return Ok(None);
        };
        let application = tag.parse().map_err(|error| {
            let name = &self.name;
            Error::Refused(format!(
                "the tag {APPLICATION_TAG} of the group {name:?} is invalid: {error}; correct the tag"
            ))
        })?;
        Ok(Some(application))
    }

    /// Returns the application that the group serves, or `None` if the group is not protected or its tag is malformed.
    pub fn valid_application(&self) -> Option<ApplicationName> {
        self.application().ok().flatten()
    }

    /// Returns whether the group serves this application. A group with a malformed tag serves none.
    pub fn serves(&self, application: &ApplicationName) -> bool {
        self.application_tag.as_deref() == Some(application.as_str())
    }

    /// Returns the members in service.
    pub fn in_service(&self) -> impl Iterator<Item = &Member> {
        let members = self.members.iter();
        members.filter(|member| member.state == LifecycleState::InService)
    }
}

/// Returns the error for an application that no group serves.
pub fn no_group(application: &ApplicationName) -> Error {
    Error::Refused(format!(
        "no Auto Scaling group has the tag {APPLICATION_TAG}={application}"
    ))
}

/// Returns every group that has the tag `rekindle:application`, also with an invalid value.
///
/// # Errors
/// [`Error::Aws`] if Auto Scaling fails.
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

/// Returns the group with this name, or `None` if there is none.
///
/// # Errors
/// [`Error::Aws`] if Auto Scaling fails.
pub async fn group(client: &Client, name: &str) -> Result<Option<Group>> {
    let described = client
        .describe_auto_scaling_groups()
        .auto_scaling_group_names(name)
        .send()
        .await
        .map_err(failed("autoscaling:DescribeAutoScalingGroups"))?;
    Ok(described.auto_scaling_groups().first().map(read_group))
}

/// Returns the name of an instance's group and its state there, or `None` if no group has the instance.
///
/// # Errors
/// [`Error::Aws`] if Auto Scaling fails.
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

/// Returns when the newest launch of an instance began, or `None` if the group does not list it.
///
/// # Errors
/// [`Error::Aws`] if Auto Scaling fails.
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
        // Newest first. The description is "Launching a new EC2 instance: i-…", longer for a warm pool.
        let launch = page.activities().iter().find(|activity| {
            let description = activity.description().unwrap_or_default();
            description.starts_with("Launching") && description.contains(instance.as_str())
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
    /// The instance goes on to its next state.
    Continue,
    /// A launching instance is terminated. A terminating one is kept for an operator if its group is configured so.
    Abandon,
}

impl LifecycleResult {
    /// Returns AWS' name of the result.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Continue => "CONTINUE",
            Self::Abandon => "ABANDON",
        }
    }
}

/// The result of an answer to a lifecycle hook, or of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// Auto Scaling accepted it.
    Done,
    /// The instance does not wait in the hook any more: the hook was answered before, it expired, or the instance is
    /// gone.
    AlreadyResolved,
}

/// Answers the hook in which an instance waits. A repetition is harmless.
///
/// Only the caller that gave the first answer logs the result. So the SDK's retries are off: if the response to the
/// first try is lost, and the second try finds that the hook is answered, the answer is this caller's own.
///
/// # Errors
/// [`Error::Aws`] if Auto Scaling refuses the answer, or after four failed tries.
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
///
/// # Errors
/// [`Error::Aws`] if Auto Scaling fails.
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

/// Returns whether the instance does not wait in the hook any more. Auto Scaling has no error code for this, only this
/// message. Any other `ValidationError` is a defect of this program.
fn no_active_action<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    let Some(error) = error.as_service_error() else {
        return false;
    };
    error.code() == Some("ValidationError")
        && error
            .message()
            .is_some_and(|message| message.starts_with("No active Lifecycle Action"))
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
            .any(|process| process.process_name() == Some(LAUNCH)),
    }
}

/// Returns the member, or `None` if its id is not an EC2 instance's: commands cannot be sent to it.
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
