//! Auto Scaling, with the aws CLI.

use anyhow::Result;
use rekindle_tests::standin::autoscaling::Lifecycle;
use rekindle_tests::wait::wait_for;
use serde_json::json;

use super::setup::{CliSetup, GROUP, WAIT_LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn a_group_its_instance_its_hooks_and_its_activities_are_described_as_aws_describes_them()
-> Result<()> {
    let (cli, node) = CliSetup::in_service().await?;
    let groups = cli
        .aws("autoscaling describe-auto-scaling-groups --filters Name=tag-key,Values=rekindle:application")
        .await?;
    let group = &groups["AutoScalingGroups"][0];
    assert_eq!(group["AutoScalingGroupName"], GROUP);
    assert_eq!(group["Instances"][0]["InstanceId"], node.id());
    assert_eq!(group["Instances"][0]["LifecycleState"], "InService");
    assert_eq!(group["Instances"][0]["HealthStatus"], "Healthy");
    let tag = json!({"ResourceId": GROUP, "ResourceType": "auto-scaling-group", "Key": "rekindle:application",
        "Value": "demo", "PropagateAtLaunch": true});
    assert_eq!(group["Tags"], json!([tag]));

    let absent = cli
        .aws("autoscaling describe-auto-scaling-groups --auto-scaling-group-names other")
        .await?;
    assert_eq!(absent["AutoScalingGroups"], json!([]));

    let members = cli
        .aws("autoscaling describe-auto-scaling-instances")
        .await?;
    assert_eq!(
        members["AutoScalingInstances"][0]["AutoScalingGroupName"],
        GROUP
    );
    assert_eq!(
        members["AutoScalingInstances"][0]["HealthStatus"],
        "HEALTHY"
    );

    let hooks = cli
        .aws(&format!(
            "autoscaling describe-lifecycle-hooks --auto-scaling-group-name {GROUP}"
        ))
        .await?;
    let names: Vec<&str> = hooks["LifecycleHooks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|hook| hook["LifecycleHookName"].as_str())
        .collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&"rekindle-launch") && names.contains(&"rekindle-terminate"));

    let activities = cli
        .aws(&format!(
            "autoscaling describe-scaling-activities --auto-scaling-group-name {GROUP}"
        ))
        .await?;
    let launch = &activities["Activities"][0];
    assert_eq!(launch["StatusCode"], "Successful");
    assert_eq!(
        launch["Description"],
        format!("Launching a new EC2 instance: {}", node.id())
    );

    let agents = cli.aws("ssm describe-instance-information").await?;
    assert_eq!(
        agents["InstanceInformationList"][0]["InstanceId"],
        node.id()
    );
    assert_eq!(agents["InstanceInformationList"][0]["PingStatus"], "Online");

    let (code, _) = cli
        .refused("autoscaling describe-lifecycle-hooks --auto-scaling-group-name other")
        .await?;
    assert_eq!(code, "ValidationError");
    let identity = cli.aws("sts get-caller-identity").await?;
    assert_eq!(identity["Account"], "123456789012");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_instance_waits_in_its_hook_while_its_replacement_launches() -> Result<()> {
    let (cli, old) = CliSetup::in_service().await?;
    let terminate = format!(
        "autoscaling terminate-instance-in-auto-scaling-group --instance-id {} \
         --no-should-decrement-desired-capacity",
        old.id()
    );
    let complete = format!(
        "autoscaling complete-lifecycle-action --auto-scaling-group-name {GROUP} \
         --lifecycle-hook-name rekindle-terminate --instance-id {} --lifecycle-action-result CONTINUE",
        old.id()
    );
    let answer = cli.aws(&terminate).await?;
    let description = format!("Terminating EC2 instance: {}", old.id());
    assert_eq!(answer["Activity"]["Description"], description);
    cli.standin
        .wait_until(GROUP, Lifecycle::TerminatingWait, None, WAIT_LIMIT)
        .await?;
    let new = cli.answer_launch(Some(old.id())).await?;
    assert!(old.has_power(), "the old instance still waits in its hook");
    cli.aws(&complete).await?;
    let root = old.root();
    wait_for("the old machine to be gone", WAIT_LIMIT, async || {
        Ok::<_, String>((old.is_discarded() && !root.exists()).then_some(()))
    })
    .await?;
    let (code, message) = cli.refused(&complete).await?;
    assert_eq!(code, "ValidationError");
    let sentence = format!(
        "No active Lifecycle Action found with instance ID {}",
        old.id()
    );
    assert!(message.contains(&sentence), "{message}");
    let (code, _) = cli.refused(&terminate).await?;
    assert_eq!(code, "ValidationError");
    let parameters = json!({"Text": ["true"]}).to_string();
    let (code, message) = cli
        .refused_arguments(&[
            "ssm",
            "send-command",
            "--document-name",
            "RunScript",
            "--instance-ids",
            new.id(),
            old.id(),
            "--parameters",
            &parameters,
        ])
        .await?;
    assert_eq!(code, "InvalidInstanceId");
    assert!(
        message.contains(old.id()) && !message.contains(new.id()),
        "{message}"
    );
    assert!(
        cli.standin.ssm().sent().is_empty(),
        "one bad id refuses the whole batch"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unhealthy_instance_is_replaced_only_while_launch_is_not_suspended() -> Result<()> {
    let (cli, node) = CliSetup::in_service().await?;
    cli.aws(&format!(
        "autoscaling suspend-processes --auto-scaling-group-name {GROUP} --scaling-processes Launch"
    ))
    .await?;
    let groups = cli.aws("autoscaling describe-auto-scaling-groups").await?;
    let suspended = &groups["AutoScalingGroups"][0]["SuspendedProcesses"];
    assert_eq!(suspended[0]["ProcessName"], "Launch");
    cli.aws(&format!(
        "autoscaling set-instance-health --instance-id {} --health-status Unhealthy",
        node.id()
    ))
    .await?;
    cli.standin
        .wait_until(GROUP, Lifecycle::TerminatingWait, None, WAIT_LIMIT)
        .await?;
    assert_eq!(cli.standin.group(GROUP).len(), 1, "Launch is suspended");
    cli.aws(&format!(
        "autoscaling resume-processes --auto-scaling-group-name {GROUP} --scaling-processes Launch"
    ))
    .await?;
    cli.answer_launch(Some(node.id())).await?;
    let (code, message) = cli
        .refused(&format!(
            "autoscaling set-instance-health --instance-id {} --health-status Poorly",
            node.id()
        ))
        .await?;
    assert_eq!(code, "ValidationError");
    assert!(message.contains("[Healthy, Unhealthy]"), "{message}");
    let (code, _) = cli
        .refused(&format!("autoscaling suspend-processes --auto-scaling-group-name {GROUP} --scaling-processes Lunch"))
        .await?;
    assert_eq!(code, "ValidationError");
    Ok(())
}
