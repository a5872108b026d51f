//! Auto Scaling: groups whose instances have the real lifecycle, with hooks, heartbeats and replacements.
//!
//! [`capacity`] and [`lifecycle`] decide, [`api`] implements the Query protocol, and this module has the state.

mod actions;
mod api;
mod capacity;
mod describe;
mod events;
mod lifecycle;
mod model;
mod query;
mod xml;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

pub use crate::nodes::imds::ACCOUNT;
pub use api::answer;
pub use events::envelope;
pub use lifecycle::{Effect, Pace};
pub use model::{Group, Hook, HookResult, Lifecycle, PROCESSES, Tag, Transition};
pub use xml::{Xml, error_response, response};

use crate::lock::lock;
use crate::standin::clock;
use crate::standin::fault::{ApiError, ApiResult};
use model::ByName;

/// Auto Scaling in one region.
#[derive(Debug)]
pub struct AutoScaling {
    groups: Mutex<ByName>,
    /// The time of the last [`AutoScaling::advance`]: calls in between use it.
    last_advance: Mutex<Option<OffsetDateTime>>,
    pace: Pace,
}

/// The description of a group.
#[derive(Debug, Clone)]
pub struct GroupSpec {
    /// Its name.
    pub name: String,
    /// The minimum size.
    pub min: usize,
    /// The maximum size.
    pub max: usize,
    /// The desired capacity.
    pub desired: usize,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// Its hooks. They apply to the first instance.
    pub hooks: Vec<Hook>,
    /// Whether an instance is kept if its terminate hook is abandoned.
    pub retain_on_abandon: bool,
}

/// An instance of a group, as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    /// The instance id.
    pub id: String,
    /// Its lifecycle state.
    pub state: Lifecycle,
    /// The result of its last health check.
    pub healthy: bool,
}

impl AutoScaling {
    /// Creates Auto Scaling without groups.
    pub fn new(pace: Pace) -> Self {
        Self {
            groups: Mutex::default(),
            last_advance: Mutex::default(),
            pace,
        }
    }

    /// Creates a group. Its first instances launch at the next [`AutoScaling::advance`].
    pub fn create(&self, spec: GroupSpec) -> ApiResult<()> {
        let mut groups = lock(&self.groups);
        if groups.contains_key(&spec.name) {
            return Err(ApiError::new(
                "AlreadyExists",
                format!(
                    "AutoScalingGroup by this name already exists - A group with the name {} already exists",
                    spec.name
                ),
            ));
        }
        let region = &self.pace.region;
        let arn = format!(
            "arn:aws:autoscaling:{region}:{ACCOUNT}:autoScalingGroup:{}:autoScalingGroupName/{}",
            Uuid::new_v4(),
            spec.name
        );
        let group = Group {
            arn,
            name: spec.name.clone(),
            min: spec.min,
            max: spec.max,
            desired: spec.desired,
            zone: format!("{region}a"),
            created: clock::now(),
            tags: spec.tags,
            hooks: spec.hooks,
            suspended: BTreeMap::new(),
            retain_on_abandon: spec.retain_on_abandon,
            members: Vec::new(),
            activities: Vec::new(),
            failed_launches: 0,
            back_off: None,
            deleting: false,
        };
        groups.insert(spec.name, group);
        Ok(())
    }

    /// Advances all groups to `now`. Returns the effects outside of Auto Scaling.
    pub fn advance(&self, now: OffsetDateTime) -> Vec<Effect> {
        *lock(&self.last_advance) = Some(now);
        let mut groups = lock(&self.groups);
        let effects = groups
            .values_mut()
            .flat_map(|group| capacity::advance(group, &self.pace, now))
            .collect();
        groups.retain(|_, group| !(group.deleting && group.members.is_empty()));
        effects
    }

    fn now(&self) -> OffsetDateTime {
        lock(&self.last_advance).unwrap_or_else(clock::now)
    }

    /// Records that a machine lost its power. The next health check detects it.
    pub fn lost_power(&self, instance: &str) {
        let mut groups = lock(&self.groups);
        if let Some((_, member)) = member_mut(&mut groups, instance) {
            member.running = false;
        }
    }

    /// Expires every hook that holds this instance.
    pub fn expire_hooks(&self, instance: &str) {
        let mut groups = lock(&self.groups);
        if let Some((_, member)) = member_mut(&mut groups, instance) {
            for wait in &mut member.waits {
                wait.deadline = wait.deadline.min(clock::now());
            }
        }
    }

    /// Moves all activities of a group into the past.
    pub fn backdate(&self, group: &str, by: Duration) {
        let mut groups = lock(&self.groups);
        for activity in groups
            .get_mut(group)
            .into_iter()
            .flat_map(|it| &mut it.activities)
        {
            activity.started -= by;
            activity.ended = activity.ended.map(|ended| ended - by);
        }
    }

    /// Returns the instances of a group, oldest first. Empty if there is no such group.
    pub fn instances(&self, group: &str) -> Vec<InstanceView> {
        let groups = lock(&self.groups);
        let members = groups.get(group).map(|group| group.members.iter());
        members
            .into_iter()
            .flatten()
            .map(|member| InstanceView {
                id: member.id.clone(),
                state: member.state,
                healthy: member.healthy,
            })
            .collect()
    }

    /// Returns the tags of an instance's group.
    pub fn instance_tags(&self, instance: &str) -> Vec<Tag> {
        let mut groups = lock(&self.groups);
        member_mut(&mut groups, instance).map_or_else(Vec::new, |(tags, _)| tags)
    }

    /// Returns the target lifecycle state of an instance, as IMDS shows it, or `None` if it is in no group.
    pub fn target_state(&self, instance: &str) -> Option<&'static str> {
        let mut groups = lock(&self.groups);
        let (_, member) = member_mut(&mut groups, instance)?;
        Some(if member.state.counts() {
            "InService"
        } else {
            "Terminated"
        })
    }
}

/// Returns an instance and the tags of its group.
fn member_mut<'a>(
    groups: &'a mut ByName,
    instance: &str,
) -> Option<(Vec<Tag>, &'a mut model::Member)> {
    groups.values_mut().find_map(|group| {
        let tags = group.tags.clone();
        let member = group
            .members
            .iter_mut()
            .find(|member| member.id == instance)?;
        Some((tags, member))
    })
}

#[cfg(test)]
mod tests;
