//! Operations that describe groups, instances, hooks, activities and tags.

use super::model::{Group, Hook, Member, Tag};
use super::query::Query;
use super::xml::{Xml, activity_xml};
use super::{AutoScaling, actions};
use crate::lock::lock;
use crate::standin::clock::{milliseconds, whole_seconds};
use crate::standin::fault::{ApiError, ApiResult};

/// Answers `DescribeAutoScalingGroups`.
pub(super) fn groups(auto_scaling: &AutoScaling, query: &Query) -> ApiResult<Xml> {
    let names = query.list("AutoScalingGroupNames");
    let filters = query.structures("Filters");
    let mut found = Vec::new();
    for group in lock(&auto_scaling.groups).values() {
        let wanted = names.is_empty() || names.contains(&group.name);
        if wanted && passes(group, &filters)? {
            found.push(group.clone());
        }
    }
    let (page, next) = query.page(found, 50)?;
    Ok(Xml::default()
        .list("AutoScalingGroups", &page, group_xml)
        .optional("NextToken", next))
}

/// Returns whether all filters match. A filter matches if one of its values does.
fn passes(group: &Group, filters: &[Query]) -> ApiResult<bool> {
    for filter in filters {
        let name = filter.required("Name")?;
        let values = filter.list("Values");
        let mut tags = group.tags.iter();
        let holds = match name.strip_prefix("tag:") {
            Some(key) => tags.any(|tag| tag.key == key && values.contains(&tag.value)),
            None if name == "tag-key" => tags.any(|tag| values.contains(&tag.key)),
            None if name == "tag-value" => tags.any(|tag| values.contains(&tag.value)),
            None => {
                return Err(ApiError::validation(format!(
                    "Invalid filter name {name}: use tag-key, tag-value or tag:<key>"
                )));
            }
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Answers `DescribeAutoScalingInstances`.
pub(super) fn instances(auto_scaling: &AutoScaling, query: &Query) -> ApiResult<Xml> {
    let ids = query.list("InstanceIds");
    if ids.len() > 50 {
        return Err(ApiError::validation(
            "The number of instance ids that may be passed in is limited to 50",
        ));
    }
    let mut found = Vec::new();
    for group in lock(&auto_scaling.groups).values() {
        let members = group.members.iter();
        let members = members.filter(|member| ids.is_empty() || ids.contains(&member.id));
        found.extend(members.map(|member| {
            let name = Xml::default().text("AutoScalingGroupName", &group.name);
            member_xml(member, name, group)
        }));
    }
    let (page, next) = query.page(found, 50)?;
    Ok(Xml::default()
        .list("AutoScalingInstances", &page, Clone::clone)
        .optional("NextToken", next))
}

/// Answers `DescribeLifecycleHooks`.
pub(super) fn hooks(auto_scaling: &AutoScaling, query: &Query) -> ApiResult<Xml> {
    let names = query.list("LifecycleHookNames");
    actions::with_group(auto_scaling, query, |group| {
        let mut hooks = group.hooks.clone();
        hooks.retain(|hook| names.is_empty() || names.contains(&hook.name));
        Ok(Xml::default().list("LifecycleHooks", &hooks, |hook| hook_xml(hook, &group.name)))
    })
}

/// Answers `DescribeScalingActivities`.
pub(super) fn activities(auto_scaling: &AutoScaling, query: &Query) -> ApiResult<Xml> {
    let ids = query.list("ActivityIds");
    let named = query.text("AutoScalingGroupName");
    if named.is_some() {
        actions::with_group(auto_scaling, query, |_| Ok(()))?;
    }
    let mut found = Vec::new();
    for group in lock(&auto_scaling.groups).values() {
        let wanted = group.activities.iter().filter(|activity| {
            named.is_none_or(|name| name == group.name)
                && (ids.is_empty() || ids.contains(&activity.id))
        });
        found.extend(wanted.map(|activity| (activity.started, activity_xml(activity, group))));
    }
    // AWS lists the newest first.
    found.sort_by_key(|(started, _)| std::cmp::Reverse(*started));
    let (page, next) = query.page(found, 100)?;
    Ok(Xml::default()
        .list("Activities", &page, |(_, xml)| xml.clone())
        .optional("NextToken", next))
}

/// Answers `DescribeTags`.
pub(super) fn tags(auto_scaling: &AutoScaling, query: &Query) -> ApiResult<Xml> {
    let filters = query.structures("Filters");
    let mut found = Vec::new();
    for group in lock(&auto_scaling.groups).values() {
        for tag in &group.tags {
            let mut holds = true;
            for filter in &filters {
                let values = filter.list("Values");
                holds &= match filter.required("Name")? {
                    "auto-scaling-group" => values.contains(&group.name),
                    "key" => values.contains(&tag.key),
                    "value" => values.contains(&tag.value),
                    "propagate-at-launch" => values.contains(&tag.propagate.to_string()),
                    other => {
                        return Err(ApiError::validation(format!(
                            "Invalid filter name {other}: use auto-scaling-group, key, value or \
                             propagate-at-launch"
                        )));
                    }
                };
            }
            if holds {
                found.push(tag_xml(tag, &group.name));
            }
        }
    }
    let (page, next) = query.page(found, 50)?;
    Ok(Xml::default()
        .list("Tags", &page, Clone::clone)
        .optional("NextToken", next))
}

fn group_xml(group: &Group) -> Xml {
    let processes: Vec<_> = group.suspended.iter().collect();
    let policy = if group.retain_on_abandon {
        "retain"
    } else {
        "terminate"
    };
    let triggers = Xml::default().text("TerminateHookAbandon", policy);
    Xml::default()
        .text("AutoScalingGroupName", &group.name)
        .text("AutoScalingGroupARN", &group.arn)
        .text("MinSize", group.min)
        .text("MaxSize", group.max)
        .text("DesiredCapacity", group.desired)
        .text("DefaultCooldown", 300)
        .list("AvailabilityZones", &[group.zone.as_str()], |zone| {
            Xml::default().bare_text(zone)
        })
        .text("HealthCheckType", "EC2")
        .text("HealthCheckGracePeriod", 0)
        .list("Instances", &group.members, |member| {
            member_xml(member, Xml::default(), group)
        })
        .text("CreatedTime", milliseconds(group.created))
        .list("SuspendedProcesses", &processes, |(process, since)| {
            let reason = format!("User suspended at {}", whole_seconds(**since));
            Xml::default()
                .text("ProcessName", process)
                .text("SuspensionReason", reason)
        })
        .list("Tags", &group.tags, |tag| tag_xml(tag, &group.name))
        .optional("Status", group.deleting.then_some("Delete in progress"))
        .element(
            "InstanceLifecyclePolicy",
            &Xml::default().element("RetentionTriggers", &triggers),
        )
}

fn member_xml(member: &Member, start: Xml, group: &Group) -> Xml {
    let health = if member.healthy {
        "Healthy"
    } else {
        "Unhealthy"
    };
    // DescribeAutoScalingInstances writes the health in capitals, DescribeAutoScalingGroups does not.
    let health = if start.is_empty() {
        health.to_owned()
    } else {
        health.to_uppercase()
    };
    start
        .text("InstanceId", &member.id)
        .text("InstanceType", "m7i.large")
        .text("AvailabilityZone", &group.zone)
        .text("LifecycleState", member.state)
        .text("HealthStatus", health)
        .text("ProtectedFromScaleIn", false)
}

fn hook_xml(hook: &Hook, group: &str) -> Xml {
    Xml::default()
        .text("LifecycleHookName", &hook.name)
        .text("AutoScalingGroupName", group)
        .text("LifecycleTransition", hook.transition.as_str())
        .optional("NotificationMetadata", hook.metadata.as_ref())
        .text("HeartbeatTimeout", hook.heartbeat_timeout)
        .text("GlobalTimeout", hook.global_timeout())
        .text("DefaultResult", hook.default_result.as_str())
}

fn tag_xml(tag: &Tag, group: &str) -> Xml {
    Xml::default()
        .text("ResourceId", group)
        .text("ResourceType", "auto-scaling-group")
        .text("Key", &tag.key)
        .text("Value", &tag.value)
        .text("PropagateAtLaunch", tag.propagate)
}
