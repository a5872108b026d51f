//! The events that Auto Scaling sends, in AWS's format.

use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::ACCOUNT;
use super::model::{Activity, Group, Hook, Transition};
use crate::standin::clock;

/// Returns an event with this `detail`, in EventBridge's format.
pub fn envelope(
    source: &str,
    detail_type: &str,
    region: &str,
    resources: &[String],
    detail: &Value,
) -> Value {
    json!({
        "version": "0",
        "id": Uuid::new_v4().to_string(),
        "detail-type": detail_type,
        "source": source,
        "account": ACCOUNT,
        "time": clock::whole_seconds(clock::now()),
        "region": region,
        "resources": resources,
        "detail": detail,
    })
}

/// Returns the event that starts a lifecycle action.
pub(super) fn lifecycle_action(
    group: &Group,
    instance: &str,
    hook: &Hook,
    token: &str,
    region: &str,
) -> Value {
    let mut detail = json!({
        "LifecycleActionToken": token,
        "AutoScalingGroupName": group.name,
        "LifecycleHookName": hook.name,
        "EC2InstanceId": instance,
        "LifecycleTransition": hook.transition.as_str(),
    });
    if let Some(metadata) = &hook.metadata {
        detail["NotificationMetadata"] = json!(metadata);
    }
    let (detail_type, origin, destination) = match hook.transition {
        Transition::Launching => (
            "EC2 Instance-launch Lifecycle Action",
            "EC2",
            "AutoScalingGroup",
        ),
        Transition::Terminating => (
            "EC2 Instance-terminate Lifecycle Action",
            "AutoScalingGroup",
            "EC2",
        ),
    };
    detail["Origin"] = json!(origin);
    detail["Destination"] = json!(destination);
    envelope(
        "aws.autoscaling",
        detail_type,
        region,
        std::slice::from_ref(&group.arn),
        &detail,
    )
}

/// Returns the event about the end of an activity.
pub(super) fn activity(
    group: &Group,
    activity: &Activity,
    detail_type: &str,
    region: &str,
    now: OffsetDateTime,
) -> Value {
    let failed = activity.status == "Failed" || activity.status == "Cancelled";
    let detail = json!({
        // AWS reports a successful activity as in progress.
        "StatusCode": if failed { "Failed" } else { "InProgress" },
        "Description": activity.description,
        "AutoScalingGroupName": group.name,
        "ActivityId": activity.id,
        "Details": {"Availability Zone": group.zone, "Subnet ID": "subnet-0123456789abcdef0"},
        "RequestId": activity.id,
        "StatusMessage": activity.message.clone().unwrap_or_default(),
        "EndTime": clock::whole_seconds(now),
        "EC2InstanceId": activity.instance,
        "StartTime": clock::whole_seconds(activity.started),
        "Cause": activity.cause,
    });
    let instance = format!(
        "arn:aws:ec2:{region}:{ACCOUNT}:instance/{}",
        activity.instance
    );
    envelope(
        "aws.autoscaling",
        detail_type,
        region,
        &[group.arn.clone(), instance],
        &detail,
    )
}
