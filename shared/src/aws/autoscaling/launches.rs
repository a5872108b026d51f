//! A group's launches: their results, and their suspension.

use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::types::{Activity, ScalingActivityStatusCode};
use time::OffsetDateTime;

use super::super::{failed, utc};
use super::{ACTIVITY_PAGES, LAUNCH, PAGE};
use crate::error::Result;
use crate::id::InstanceId;

/// A launch in the group's list of activities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The instance, or `None` if EC2 refused to start one.
    pub instance_id: Option<InstanceId>,
    /// When the launch began.
    pub started_at: OffsetDateTime,
    /// The result of the launch.
    pub end: LaunchEnd,
}

/// The result of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchEnd {
    /// The launch has not ended: the instance starts, or waits in a hook.
    NotYet,
    /// The instance entered service.
    Successful,
    /// The instance did not enter service: its hook was abandoned or expired, it died, or EC2 started none.
    Failed,
}

/// Returns the newest launches of a group, newest first, back to the last successful one. The list has no launches into
/// the warm pool, because they put nothing into service.
///
/// # Errors
/// [`crate::Error::Aws`] if Auto Scaling fails.
pub async fn recent(client: &Client, group: &str) -> Result<Vec<Launch>> {
    let mut pages = client
        .describe_scaling_activities()
        .auto_scaling_group_name(group)
        .into_paginator()
        .page_size(PAGE)
        .send();
    let mut launches: Vec<Launch> = Vec::new();
    for _ in 0..ACTIVITY_PAGES {
        let Some(page) = pages.next().await else {
            break;
        };
        let page = page.map_err(failed("autoscaling:DescribeScalingActivities"))?;
        launches.extend(page.activities().iter().filter_map(read_launch));
        if launches.iter().any(|it| it.end == LaunchEnd::Successful) {
            break;
        }
    }
    Ok(launches)
}

/// Suspends a group's launches and no other process. A repetition is harmless.
///
/// # Errors
/// [`crate::Error::Aws`] if Auto Scaling fails.
pub async fn suspend(client: &Client, group: &str) -> Result<()> {
    client
        .suspend_processes()
        .auto_scaling_group_name(group)
        .scaling_processes(LAUNCH)
        .send()
        .await
        .map_err(failed("autoscaling:SuspendProcesses"))?;
    Ok(())
}

/// Resumes a group's launches and no other process. A repetition is harmless.
///
/// # Errors
/// [`crate::Error::Aws`] if Auto Scaling fails.
pub async fn resume(client: &Client, group: &str) -> Result<()> {
    client
        .resume_processes()
        .auto_scaling_group_name(group)
        .scaling_processes(LAUNCH)
        .send()
        .await
        .map_err(failed("autoscaling:ResumeProcesses"))?;
    Ok(())
}

/// Returns the launch that an activity describes, or `None` if it is another activity. A launch is described as
/// "Launching a new EC2 instance: i-….  Status Reason: …", with "from warm pool" before the colon if it came from
/// there.
fn read_launch(activity: &Activity) -> Option<Launch> {
    let description = activity.description().unwrap_or_default();
    if !description.starts_with("Launching") || description.contains("into warm pool") {
        return None;
    }
    let mut names = description.split(|it: char| !(it.is_ascii_alphanumeric() || it == '-'));
    Some(Launch {
        instance_id: names.find_map(|name| name.parse().ok()),
        started_at: activity.start_time().and_then(utc)?,
        end: match activity.status_code()? {
            ScalingActivityStatusCode::Successful => LaunchEnd::Successful,
            ScalingActivityStatusCode::Cancelled | ScalingActivityStatusCode::Failed => {
                LaunchEnd::Failed
            }
            _ => LaunchEnd::NotYet,
        },
    })
}
