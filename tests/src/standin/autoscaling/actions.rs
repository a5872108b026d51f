//! Operations that change a group: answers to hooks, terminations, health, suspensions and sizes.

use super::model::{Group, Hook, HookResult, Lifecycle, Member, PROCESSES, Tag, Transition, Wait};
use super::query::Query;
use super::xml::Xml;
use super::xml::activity_xml;
use super::{AutoScaling, GroupSpec, lifecycle};
use crate::lock::lock;
use crate::standin::clock;
use crate::standin::fault::{ApiError, ApiResult};

/// Calls `act` with the group that the request names.
pub(super) fn with_group<T>(
    auto_scaling: &AutoScaling,
    query: &Query,
    act: impl FnOnce(&mut Group) -> ApiResult<T>,
) -> ApiResult<T> {
    let name = query.required("AutoScalingGroupName")?;
    let mut groups = lock(&auto_scaling.groups);
    let group = groups.get_mut(name).ok_or_else(|| {
        ApiError::validation(format!(
            "AutoScalingGroup name not found - AutoScalingGroup {name} not found"
        ))
    })?;
    act(group)
}

/// Answers `CompleteLifecycleAction`.
pub(super) fn complete(auto_scaling: &AutoScaling, query: &Query) -> ApiResult<Xml> {
    let result = HookResult::parse(query.required("LifecycleActionResult")?)?;
    with_wait(auto_scaling, query, |wait, _| {
        let message = match result {
            HookResult::Continue => "Lifecycle Action Completed with CONTINUE Result",
            HookResult::Abandon => "Lifecycle Action Completed with ABANDON Result",
        };
        wait.result = Some((result, message));
    })
}

/// Answers `RecordLifecycleActionHeartbeat`.
pub(super) fn heartbeat(auto_scaling: &AutoScaling, query: &Query) -> ApiResult<Xml> {
    with_wait(auto_scaling, query, |wait, auto_scaling| {
        let seconds = f64::from(wait.hook.heartbeat_timeout);
        wait.deadline = auto_scaling.pace.clock.after(auto_scaling.now(), seconds);
    })
}

/// Calls `act` with the open wait of the request's hook and token or instance.
fn with_wait(
    auto_scaling: &AutoScaling,
    query: &Query,
    act: impl FnOnce(&mut Wait, &AutoScaling),
) -> ApiResult<Xml> {
    let hook = query.required("LifecycleHookName")?;
    let token = query.text("LifecycleActionToken");
    let instance = query.text("InstanceId");
    if token.is_some_and(|token| token.len() != 36) {
        return Err(ApiError::validation(
            "1 validation error detected: Value at 'lifecycleActionToken' failed to satisfy constraint: \
             Member must have length equal to 36",
        ));
    }
    let missing = match (token, instance) {
        (Some(token), _) => format!("No active Lifecycle Action found with token {token}"),
        (None, Some(id)) => format!("No active Lifecycle Action found with instance ID {id}"),
        (None, None) => {
            return Err(ApiError::validation(
                "Either LifecycleActionToken or InstanceId has to be given",
            ));
        }
    };
    with_group(auto_scaling, query, |group| {
        if !group.hooks.iter().any(|known| known.name == hook) {
            return Err(ApiError::validation(format!(
                "No Lifecycle Hook found with name {hook} for AutoScalingGroup {}",
                group.name
            )));
        }
        let members = group.members.iter_mut();
        let found = members
            .filter(|member| token.is_some() || instance == Some(member.id.as_str()))
            .flat_map(|member| member.waits.iter_mut())
            .find(|wait| {
                let named = token.is_none_or(|token| wait.token == token);
                named && wait.hook.name == hook && wait.result.is_none()
            });
        let wait = found.ok_or_else(|| ApiError::validation(missing))?;
        act(wait, auto_scaling);
        Ok(Xml::default())
    })
}

/// Calls `act` with the instance that the request names and its group.
fn with_member<T>(
    auto_scaling: &AutoScaling,
    query: &Query,
    act: impl FnOnce(&mut Group, &mut Member) -> ApiResult<T>,
) -> ApiResult<T> {
    let id = query.required("InstanceId")?;
    let mut groups = lock(&auto_scaling.groups);
    for group in groups.values_mut() {
        let Some(position) = group.members.iter().position(|member| member.id == id) else {
            continue;
        };
        // Removed during the call, so that both can be changed, and inserted again at the same position.
        let mut member = group.members.remove(position);
        let answer = act(group, &mut member);
        group.members.insert(position, member);
        return answer;
    }
    Err(ApiError::validation(format!(
        "Instance Id not found - No managed instance found for instance ID: {id}"
    )))
}

/// Answers `TerminateInstanceInAutoScalingGroup`.
pub(super) fn terminate(auto_scaling: &AutoScaling, query: &Query) -> ApiResult<Xml> {
    let decrement = query
        .flag("ShouldDecrementDesiredCapacity")?
        .ok_or_else(|| {
            ApiError::validation(
                "1 validation error detected: Value at 'shouldDecrementDesiredCapacity' failed to satisfy \
                 constraint: Member must not be null",
            )
        })?;
    with_member(auto_scaling, query, |group, member| {
        let now = auto_scaling.now();
        match member.state {
            Lifecycle::TerminatingRetained => {
                member.state = Lifecycle::TerminatingProceed;
                member.due = Some(now);
            }
            state if state.counts() => {
                if decrement {
                    if group.desired <= group.min {
                        return Err(ApiError::validation(format!(
                            "Currently, desiredSize equals minSize ({}). Terminating instance without \
                             replacement will violate group's min size constraint. Either set \
                             shouldDecrementDesiredCapacity flag to false or lower group's min size.",
                            group.min
                        )));
                    }
                    group.desired -= 1;
                }
                let cause = format!(
                    "At {} instance {} was taken out of service in response to a user request.",
                    clock::whole_seconds(now),
                    member.id
                );
                lifecycle::terminate(group, member, &cause, &auto_scaling.pace, now);
            }
            // It terminates already: AWS returns the running activity.
            _ => {}
        }
        let id = member.activity.clone();
        let activity = group.activity(&id).cloned();
        let activity = activity.map(|activity| activity_xml(&activity, group));
        Ok(Xml::default().element("Activity", &activity.unwrap_or_default()))
    })
}

/// Answers `SetInstanceHealth`.
pub(super) fn set_health(auto_scaling: &AutoScaling, query: &Query) -> ApiResult<Xml> {
    let healthy = match query.required("HealthStatus")? {
        "Healthy" => true,
        "Unhealthy" => false,
        _ => {
            return Err(ApiError::validation(
                "Valid instance health states are: [Healthy, Unhealthy].",
            ));
        }
    };
    with_member(auto_scaling, query, |_, member| {
        member.healthy = healthy;
        Ok(Xml::default())
    })
}

/// Returns the processes that the request names, or all if it names none.
fn processes(query: &Query) -> ApiResult<Vec<String>> {
    let named = query.list("ScalingProcesses");
    if let Some(unknown) = named
        .iter()
        .find(|name| !PROCESSES.contains(&name.as_str()))
    {
        return Err(ApiError::validation(format!(
            "Invalid process name: {unknown}. Valid names are: [{}]",
            PROCESSES.join(", ")
        )));
    }
    if named.is_empty() {
        return Ok(PROCESSES.map(str::to_owned).to_vec());
    }
    Ok(named)
}

/// Answers `SuspendProcesses`.
pub(super) fn suspend(auto_scaling: &AutoScaling, query: &Query) -> ApiResult<Xml> {
    let processes = processes(query)?;
    let now = auto_scaling.now();
    with_group(auto_scaling, query, |group| {
        for process in processes {
            group.suspended.entry(process).or_insert(now);
        }
        Ok(Xml::default())
    })
}

/// Answers `ResumeProcesses`.
pub(super) fn resume(auto_scaling: &AutoScaling, query: &Query) -> ApiResult<Xml> {
    let processes = processes(query)?;
    with_group(auto_scaling, query, |group| {
        group.suspended.retain(|name, _| !processes.contains(name));
        Ok(Xml::default())
    })
}

/// Answers `SetDesiredCapacity`.
pub(super) fn set_desired(auto_scaling: &AutoScaling, query: &Query) -> ApiResult<Xml> {
    query.required("DesiredCapacity")?;
    let desired = query.number("DesiredCapacity")?.unwrap_or_default();
    with_group(auto_scaling, query, |group| {
        let (side, limit) = if desired > group.max {
            ("above max", group.max)
        } else if desired < group.min {
            ("below min", group.min)
        } else {
            group.desired = desired;
            return Ok(Xml::default());
        };
        Err(ApiError::validation(format!(
            "New SetDesiredCapacity value {desired} is {side} value {limit} for the AutoScalingGroup."
        )))
    })
}

/// Answers `PutLifecycleHook`.
pub(super) fn put_hook(auto_scaling: &AutoScaling, query: &Query) -> ApiResult<Xml> {
    let name = query.required("LifecycleHookName")?.to_owned();
    let timeout = query.number("HeartbeatTimeout")?;
    if timeout.is_some_and(|timeout| !(30..=7200).contains(&timeout)) {
        return Err(ApiError::validation(
            "HeartbeatTimeout has to be between 30 and 7200 seconds",
        ));
    }
    let default_result = query
        .text("DefaultResult")
        .map(HookResult::parse)
        .transpose()?;
    let transition = query
        .text("LifecycleTransition")
        .map(Transition::parse)
        .transpose()?;
    let metadata = query.text("NotificationMetadata").map(str::to_owned);
    with_group(auto_scaling, query, |group| {
        let known = group.hooks.iter().find(|hook| hook.name == name).cloned();
        let transition = transition.or(known.as_ref().map(|hook| hook.transition));
        let transition = transition.ok_or_else(|| {
            ApiError::validation("LifecycleTransition has to be given for a new lifecycle hook")
        })?;
        let timeout = timeout.and_then(|timeout| u32::try_from(timeout).ok());
        let hook = Hook {
            name: name.clone(),
            transition,
            heartbeat_timeout: timeout
                .or(known.as_ref().map(|hook| hook.heartbeat_timeout))
                .unwrap_or(3600),
            default_result: default_result
                .or(known.as_ref().map(|hook| hook.default_result))
                .unwrap_or(HookResult::Abandon),
            metadata: metadata.or_else(|| known.and_then(|hook| hook.metadata)),
        };
        group.hooks.retain(|hook| hook.name != name);
        group.hooks.push(hook);
        Ok(Xml::default())
    })
}

/// Returns the request's tags, each with the group that it names.
fn tags_of(query: &Query) -> ApiResult<Vec<(Option<String>, Tag)>> {
    let tags = query.structures("Tags");
    let tags = tags.iter().map(|tag| {
        let group = tag.text("ResourceId").map(str::to_owned);
        let tag = Tag {
            key: tag.required("Key")?.to_owned(),
            value: tag.text("Value").unwrap_or_default().to_owned(),
            propagate: tag.flag("PropagateAtLaunch")?.unwrap_or_default(),
        };
        Ok((group, tag))
    });
    tags.collect()
}

/// Answers `CreateAutoScalingGroup`.
pub(super) fn create_group(auto_scaling: &AutoScaling, query: &Query) -> ApiResult<Xml> {
    let size = |name: &str| -> ApiResult<usize> {
        query.required(name)?;
        Ok(query.number(name)?.unwrap_or_default())
    };
    let (min, max) = (size("MinSize")?, size("MaxSize")?);
    let desired = query.number("DesiredCapacity")?.unwrap_or(min);
    if !(min <= desired && desired <= max) {
        return Err(ApiError::validation(
            "Desired capacity has to be between the specified min size and max size",
        ));
    }
    let mut hooks = Vec::new();
    for hook in query.structures("LifecycleHookSpecificationList") {
        hooks.push(Hook {
            name: hook.required("LifecycleHookName")?.to_owned(),
            transition: Transition::parse(hook.required("LifecycleTransition")?)?,
            heartbeat_timeout: hook
                .number("HeartbeatTimeout")?
                .and_then(|timeout| u32::try_from(timeout).ok())
                .unwrap_or(3600),
            default_result: hook
                .text("DefaultResult")
                .map_or(Ok(HookResult::Abandon), HookResult::parse)?,
            metadata: hook.text("NotificationMetadata").map(str::to_owned),
        });
    }
    let retain = query.text("InstanceLifecyclePolicy.RetentionTriggers.TerminateHookAbandon");
    auto_scaling.create(GroupSpec {
        name: query.required("AutoScalingGroupName")?.to_owned(),
        min,
        max,
        desired,
        tags: tags_of(query)?.into_iter().map(|(_, tag)| tag).collect(),
        hooks,
        retain_on_abandon: retain == Some("retain"),
    })?;
    Ok(Xml::default())
}

/// Answers `DeleteAutoScalingGroup`.
pub(super) fn delete_group(auto_scaling: &AutoScaling, query: &Query) -> ApiResult<Xml> {
    let force = query.flag("ForceDelete")?.unwrap_or_default();
    with_group(auto_scaling, query, |group| {
        if !force && !group.members.is_empty() {
            return Err(ApiError::new(
                "ResourceInUse",
                "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance \
                 request(s) still in the group.",
            ));
        }
        (group.min, group.desired, group.deleting) = (0, 0, true);
        // A forced deletion runs no hooks.
        group.hooks.clear();
        for member in &mut group.members {
            member.waits.clear();
            member.state = Lifecycle::TerminatingProceed;
            member.due = Some(auto_scaling.now());
        }
        Ok(Xml::default())
    })
}

/// Answers `CreateOrUpdateTags`.
pub(super) fn tag(auto_scaling: &AutoScaling, query: &Query) -> ApiResult<Xml> {
    let mut groups = lock(&auto_scaling.groups);
    for (name, tag) in tags_of(query)? {
        let name = name.unwrap_or_default();
        let group = groups.get_mut(&name).ok_or_else(|| {
            ApiError::validation(format!(
                "AutoScalingGroup name not found - AutoScalingGroup {name} not found"
            ))
        })?;
        group.tags.retain(|known| known.key != tag.key);
        group.tags.push(tag);
    }
    Ok(Xml::default())
}
