//! The Query API: calls the function for each action.

use super::query::Query;
use super::xml::{self, Xml};
use super::{AutoScaling, actions, describe};
use crate::standin::fault::{ApiError, ApiResult, PlannedFaults};

/// Answers one Query request with XML. [`super::error_response`] turns an error into XML.
pub fn answer(
    auto_scaling: &AutoScaling,
    planned: &PlannedFaults,
    body: &[u8],
) -> ApiResult<String> {
    let query = Query::parse(body);
    let action = query
        .text("Action")
        .ok_or_else(|| ApiError::new("MissingAction", "The request names no Action."))?;
    planned.take(action)?;
    let result = act(auto_scaling, action, &query)?;
    Ok(xml::response(action, xml::NAMESPACE, &result))
}

/// Runs one action.
fn act(auto_scaling: &AutoScaling, action: &str, query: &Query) -> ApiResult<Xml> {
    match action {
        "DescribeAutoScalingGroups" => describe::groups(auto_scaling, query),
        "DescribeAutoScalingInstances" => describe::instances(auto_scaling, query),
        "DescribeLifecycleHooks" => describe::hooks(auto_scaling, query),
        "DescribeScalingActivities" => describe::activities(auto_scaling, query),
        "DescribeTags" => describe::tags(auto_scaling, query),
        "CompleteLifecycleAction" => actions::complete(auto_scaling, query),
        "RecordLifecycleActionHeartbeat" => actions::heartbeat(auto_scaling, query),
        "TerminateInstanceInAutoScalingGroup" => actions::terminate(auto_scaling, query),
        "SetInstanceHealth" => actions::set_health(auto_scaling, query),
        "SuspendProcesses" => actions::suspend(auto_scaling, query),
        "ResumeProcesses" => actions::resume(auto_scaling, query),
        "SetDesiredCapacity" => actions::set_desired(auto_scaling, query),
        "CreateAutoScalingGroup" => actions::create_group(auto_scaling, query),
        "DeleteAutoScalingGroup" => actions::delete_group(auto_scaling, query),
        "PutLifecycleHook" => actions::put_hook(auto_scaling, query),
        "CreateOrUpdateTags" => actions::tag(auto_scaling, query),
        other => Err(ApiError::new(
            "InvalidAction",
            format!("Could not find operation {other} for version 2011-01-01 in the stand-in"),
        )),
    }
}
