//! Final backups, end to end: a planned replacement loses nothing, and a dead node does not delay its replacement.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rekindle_tests::fixtures::protected_groups::{ProtectedGroups, WAIT_LIMIT};
use rekindle_tests::fixtures::registry::{MAIN_DATABASE, block_dumps};
use rekindle_tests::nodes::machine::Node;
use rekindle_tests::standin::autoscaling::Lifecycle;
use rekindle_tests::standin::bus::DeliveryFault;
use rekindle_tests::wait::wait_for;
use serde_json::Value;
use shared::command::Purpose;
use shared::exit_code::ExitCode;
use shared::id::BackupId;
use shared::report::RestoreOutcome;
use tokio::try_join;

use super::event;

const TERMINATE: &str = "EC2 Instance-terminate Lifecycle Action";

/// Terminates the node and waits for its replacement.
async fn replace(protected: &ProtectedGroups, node: &Node) -> Result<Arc<Node>> {
    protected.standin.terminate(node.id()).await?;
    protected
        .wait_until_in_service(node.group(), Some(node))
        .await
}

/// Returns the backup that the node was restored from, according to its report.
async fn source(protected: &ProtectedGroups, node: &Node) -> Result<BackupId> {
    match protected.restore_report(node).await?.outcome {
        RestoreOutcome::Restored { backup_id, .. } => Ok(backup_id),
        other => anyhow::bail!("{} was not restored: {other:?}", node.id()),
    }
}

/// Returns the terminate hook's event for a node.
fn terminate_event(node: &Node) -> Result<Value> {
    let mut event = event("terminate.json")?;
    event["detail"]["AutoScalingGroupName"] = node.group().into();
    event["detail"]["EC2InstanceId"] = node.id().into();
    Ok(event)
}

/// Returns the process id of the node's application, or an error if it does not run.
fn application_pid(node: &Node) -> Result<String> {
    let path = node.root().join("run/registry.pid");
    let pid = std::fs::read_to_string(path).context("the application is not running")?;
    let pid = pid.trim().to_owned();
    assert!(std::path::Path::new("/proc").join(&pid).exists(), "{pid}");
    Ok(pid)
}

/// Checks that the application's newest backup is a final backup, and that the node was restored from it.
async fn assert_restored_from_final(protected: &ProtectedGroups, node: &Node) -> Result<()> {
    let newest = protected.backups(node.group())?;
    let newest = newest.last().context("there is no backup")?;
    let manifest = protected.manifest(node.group(), newest)?;
    assert_eq!(manifest.index.purpose, Purpose::Final);
    assert_eq!(&source(protected, node).await?, newest);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_replacement_under_load_loses_no_acknowledged_event() -> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group("load").await?;
    protected.back_up("load").await?;
    let load = protected.load("load")?;
    load.begin()?;
    wait_for("events under load", WAIT_LIMIT, async || {
        let count = load
            .acknowledged()
            .map_err(|error| format!("{error:#}"))?
            .len();
        Ok::<_, String>((count > 50).then_some(()))
    })
    .await?;
    let next = replace(&protected, &node).await?;
    let acknowledged = load.acknowledged()?;
    load.end()?;
    assert_restored_from_final(&protected, &next).await?;
    let client = next.cluster()?.connect(MAIN_DATABASE).await?;
    let rows = client
        .query("SELECT id FROM registry.push_event", &[])
        .await?;
    let present: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    let lost: Vec<&i64> = acknowledged
        .iter()
        .filter(|id| !present.contains(id))
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_terminate_event_a_sweep_starts_the_final_backup() -> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group("lost").await?;
    protected
        .standin
        .bus()
        .inject(TERMINATE, DeliveryFault::Drop, 1);
    let next = replace(&protected, &node).await?;
    assert_restored_from_final(&protected, &next).await
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicated_and_late_terminate_events_never_stop_a_node_in_service() -> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group("late").await?;
    // The event names a node that is not being terminated.
    let running = application_pid(&node)?;
    protected.invoke("backup", terminate_event(&node)?).await?;
    assert!(protected.invocations(&node, "backup").await?.is_empty());
    assert_eq!(application_pid(&node)?, running);
    protected.back_up("late").await?;

    let late = terminate_event(&node)?;
    protected
        .standin
        .bus()
        .inject(TERMINATE, DeliveryFault::Duplicate, 1);
    let next = replace(&protected, &node).await?;
    protected.wait_until_idle().await?;
    assert_eq!(protected.backups("late")?.len(), 2);
    assert_restored_from_final(&protected, &next).await?;

    // The event is delivered again much later, when the next node is in service.
    let running = application_pid(&next)?;
    protected.invoke("backup", late).await?;
    assert!(protected.invocations(&next, "backup").await?.is_empty());
    assert_eq!(application_pid(&next)?, running);
    protected.back_up("late").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_final_backup_of_a_dead_node_its_replacement_restores_the_newest_backup()
-> Result<()> {
    let protected = ProtectedGroups::with(ProtectedGroups::builder().stale(60.0)).await?;
    let (powerless, silent) = try_join!(
        protected.create_filled("powerless"),
        protected.create_filled("silent")
    )?;
    let at = time::OffsetDateTime::now_utc();
    protected.standin.bus().tick(at);
    let before = (
        protected
            .wait_for_backup("powerless", 0)
            .await?
            .index
            .backup_id,
        protected
            .wait_for_backup("silent", 0)
            .await?
            .index
            .backup_id,
    );

    // SSM still lists this agent as online when the terminate hook starts.
    let next = protected.replace_lost(&powerless).await?;
    assert_eq!(source(&protected, &next).await?, before.0);
    protected
        .wait_for_failure("powerless", "NoFinalBackup")
        .await?;

    // SSM lists this agent as lost.
    silent.stop_agent();
    let ssm = aws_sdk_ssm::Client::new(protected.standin.aws());
    wait_for("SSM to list the agent as lost", WAIT_LIMIT, async || {
        let agents = ssm.describe_instance_information().send().await;
        let agents = agents.map_err(|error| error.to_string())?;
        let lost = agents.instance_information_list().iter().any(|agent| {
            agent.instance_id() == Some(silent.id())
                && agent
                    .ping_status()
                    .is_some_and(|ping| ping.as_str() == "ConnectionLost")
        });
        Ok::<_, String>(lost.then_some(()))
    })
    .await?;
    let next = replace(&protected, &silent).await?;
    assert_eq!(source(&protected, &next).await?, before.1);
    let message = protected
        .wait_for_failure("silent", "NoFinalBackup")
        .await?;
    assert!(
        message.contains("its SSM agent does not answer"),
        "{message}"
    );
    for application in ["powerless", "silent"] {
        assert_eq!(protected.backups(application)?.len(), 1, "{application}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_marker_takes_no_final_backup() -> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group("fresh").await?;
    let before = protected.back_up("fresh").await?.index.backup_id;
    std::fs::remove_file(node.marker())?;
    let next = replace(&protected, &node).await?;
    assert_eq!(protected.backups("fresh")?.len(), 1);
    assert_eq!(source(&protected, &next).await?, before);
    assert!(protected.errors("fresh").is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_final_backup_the_node_is_terminated_unless_its_group_retains_it()
-> Result<()> {
    let protected = ProtectedGroups::start().await?;
    let mut retaining = protected.describe("kept")?;
    retaining.retain_on_abandon = true;
    protected.standin.create_group(retaining)?;
    let (kept, gone) = try_join!(
        protected.wait_until_in_service("kept", None),
        protected.create_empty("gone")
    )?;
    protected.standin.tick();
    let before = (
        protected.wait_for_backup("kept", 0).await?.index.backup_id,
        protected.wait_for_backup("gone", 0).await?.index.backup_id,
    );
    let standin = &protected.standin;
    for application in ["kept", "gone"] {
        let prefix = format!("backups/{application}/");
        standin.s3().deny("PutObject", standin.bucket(), &prefix);
    }
    let next = replace(&protected, &kept).await?;
    assert_eq!(source(&protected, &next).await?, before.0);
    let retained = standin.group("kept").into_iter();
    let state = retained
        .filter(|one| one.id == kept.id())
        .map(|one| one.state)
        .next();
    assert_eq!(state, Some(Lifecycle::TerminatingRetained));

    let next = replace(&protected, &gone).await?;
    assert_eq!(source(&protected, &next).await?, before.1);
    for application in ["kept", "gone"] {
        let message = protected.wait_for_failure(application, "Upload").await?;
        assert!(message.contains("AccessDenied"), "{message}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_backup_preempts_a_running_scheduled_backup() -> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group("preempted").await?;
    let blocker = block_dumps(&node).await?;
    protected.standin.tick();
    protected.wait_until_executing(&node, "backup", 1).await?;
    protected.standin.terminate(node.id()).await?;
    let scheduled = protected.wait_until_ended(&node, "backup", 0).await?;
    assert_eq!(scheduled.code, i32::from(ExitCode::Busy.code()));
    assert!(
        scheduled.output.contains("preempted by"),
        "{}",
        scheduled.output
    );
    drop(blocker);
    let next = protected
        .wait_until_in_service("preempted", Some(&node))
        .await?;
    let purposes: Result<Vec<Purpose>> = protected
        .backups("preempted")?
        .iter()
        .map(|backup| Ok(protected.manifest("preempted", backup)?.index.purpose))
        .collect();
    assert_eq!(purposes?, [Purpose::Final]);
    assert!(protected.errors("preempted").is_empty());
    assert_restored_from_final(&protected, &next).await
}
