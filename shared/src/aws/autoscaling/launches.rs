//! What became of a group's launches, and whether it may launch anything.

use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::types::{Activity, ScalingActivityStatusCode};
use time::OffsetDateTime;

use super::super::{failed, utc};
use super::{ACTIVITY_PAGES, PAGE};
use crate::error::Result;
use crate::id::InstanceId;

/// The process of Auto Scaling by which a group gets instances.
pub(super) const LAUNCH: &str = "Launch";

/// A launch, as the group recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The instance; none where EC2 refused to give one.
    pub instance_id: Option<InstanceId>,
    /// When it began.
    pub started_at: OffsetDateTime,
    /// What became of it.
    pub end: LaunchEnd,
}

/// What became of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchEnd {
    /// It is not over: the instance starts, or waits in a hook.
    NotYet,
    /// The instance came into service.
    Successful,
    /// It did not: its hook was abandoned or expired, it died on its way, or there never was one.
    Failed,
}

/// Returns the newest launches of a group, the newest first, back to the last successful one. What fills a warm pool
/// is none of them: it puts nothing into service.
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

/// Suspends a group's launches, and nothing else. Doing so twice is harmless.
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

/// Resumes a group's launches, and nothing else. Doing so twice is harmless.
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

/// Reads an activity that is a launch: "Launching a new EC2 instance: i-….  Status Reason: …", and "from warm pool"
/// before the colon where it came from there.
fn read_launch(activity: &Activity) -> Option<Launch> {
    let words = activity.description().unwrap_or_default();
    if !words.starts_with("Launching") || words.contains("into warm pool") {
        return None;
    }
    let mut names = words.split(|it: char| !(it.is_ascii_alphanumeric() || it == '-'));
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
