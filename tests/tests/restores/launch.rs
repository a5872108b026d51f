//! A launched instance is admitted once, with its application's data, or not at all, even if events are lost,
//! duplicated or late, or a function, an agent or a node is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use rekindle_tests::fixtures::processes;
use rekindle_tests::fixtures::protected_groups::{ProtectedGroups, WAIT_LIMIT};
use rekindle_tests::fixtures::registry::MAIN_DATABASE;
use rekindle_tests::fixtures::standalone;
use rekindle_tests::fixtures::standalone::DataSnapshot;
use rekindle_tests::fixtures::standalone::StandaloneNode;
use rekindle_tests::nodes::machine::Node;
use rekindle_tests::repository::event;
use rekindle_tests::standin::StandIn;
use rekindle_tests::standin::autoscaling::Lifecycle;
use rekindle_tests::standin::bus::DeliveryFault;
use rekindle_tests::standin::lambda::LogLine;
use rekindle_tests::standin::s3::S3Fault;
use rekindle_tests::wait::wait_for;
use serde_json::Value;
use shared::manifest::Lineage;
use shared::report::{Report, RestoreOutcome};

use super::backed_up;

const LAUNCH: &str = "EC2 Instance-launch Lifecycle Action";
const DUMP: &str = "postgres/1.dump.zst";

/// Checks that a node has the rows and files of the backup, and nothing more next to the configured paths.
fn assert_restored(found: &DataSnapshot, backed_up: &DataSnapshot) {
    let without_rows = |data: &DataSnapshot| {
        format!(
            "{:?} {:?} {:?}",
            data.databases.keys(),
            data.files,
            data.beside
        )
    };
    assert!(
        found.is_same_as(backed_up),
        "the data differ: {}, {}",
        without_rows(found),
        without_rows(backed_up)
    );
}

/// Reads the node's `restored` marker.
fn marker(node: &Node) -> Result<Value> {
    let path = node.marker();
    let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

/// Waits until a condition holds.
async fn wait_until(what: &str, holds: impl Fn() -> bool) -> Result<()> {
    wait_for(what, WAIT_LIMIT, async || {
        Ok::<_, String>(holds().then_some(()))
    })
    .await
}

/// Returns whether an instance of the group is in service, or the restore function admitted one.
fn was_in_service(protected: &ProtectedGroups, application: &str) -> bool {
    let admits = |line: &LogLine| {
        line.group.as_deref() == Some(application) && line.has_decision("admit-restored")
    };
    let now = protected.standin.group(application);
    now.iter().any(|one| one.state == Lifecycle::InService) || protected.log(0).iter().any(admits)
}

/// Returns how often the restore function logged that it admitted the node.
fn admissions(protected: &ProtectedGroups, node: &Node) -> usize {
    let lines = protected.log(0).into_iter();
    lines
        .filter(|line| line.has_decision("admit") && line.is_about_instance(node.id()))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_without_backups_starts_empty_and_is_backed_up_from_then_on() -> Result<()> {
    let protected = ProtectedGroups::start().await?;
    let node = protected.create_empty("fresh").await?;
    let report = protected.restore_report(&node).await?;
    assert_eq!(report.outcome, RestoreOutcome::FirstBoot);
    assert_eq!(marker(&node)?["lineage"]["kind"], "first-boot");
    let manifest = protected.back_up("fresh").await?;
    assert_eq!(manifest.index.node.lineage, Lineage::FirstBoot);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_lost_events_a_sweep_restores_the_instance() -> Result<()> {
    let (protected, lost, _, data) = backed_up("unheard").await?;
    let bus = protected.standin.bus();
    bus.inject(LAUNCH, DeliveryFault::Drop, 1);
    let document = protected.document("restore")?;
    bus.inject_where(
        move |event| event["detail"]["document-name"] == document.as_str(),
        DeliveryFault::Drop,
        usize::MAX,
    );
    let node = protected.replace_lost(&lost).await?;
    assert_restored(&standalone::snapshot(&node).await?, &data);
    let dropped = bus.records();
    let dropped: Vec<_> = dropped
        .iter()
        .filter(|record| record.fault == Some(DeliveryFault::Drop))
        .collect();
    assert!(
        dropped
            .iter()
            .any(|record| record.event["detail-type"] == LAUNCH),
        "{dropped:?}"
    );
    assert!(
        dropped
            .iter()
            .any(|record| record.event["detail"]["status"] == "Success"),
        "{dropped:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicated_late_and_reordered_launch_events_restore_once() -> Result<()> {
    let (protected, lost, _, data) = backed_up("again").await?;
    let bus = protected.standin.bus();
    bus.inject(LAUNCH, DeliveryFault::Duplicate, 1);
    protected.standin.lambda().duplicate_next(2);
    let node = protected.replace_lost(&lost).await?;
    assert_restored(&standalone::snapshot(&node).await?, &data);

    // All events are delivered again, newest first, when the node already has new data.
    let main = node.cluster()?.connect(MAIN_DATABASE).await?;
    main.batch_execute("CREATE TABLE public.later AS SELECT 1 AS one")
        .await?;
    let (before, marked) = (standalone::snapshot(&node).await?, marker(&node)?);
    for record in bus.records().iter().rev() {
        bus.put(record.event.clone());
    }
    protected.standin.sweep();
    protected.wait_until_idle().await?;
    assert_restored(&standalone::snapshot(&node).await?, &before);
    assert_eq!(marker(&node)?, marked);
    assert_eq!(admissions(&protected, &node), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_whose_agent_never_registers_is_abandoned_when_its_hook_expires() -> Result<()>
{
    // One hour of AWS's time lasts six seconds here, so the hook's half hour lasts three.
    let builder = StandIn::builder().time_scale(600.0).registration_delay(1e9);
    let protected = ProtectedGroups::with(builder).await?;
    protected
        .standin
        .create_group(protected.describe("mute")?)?;
    let standin = &protected.standin;
    let first = standin
        .wait_until("mute", Lifecycle::PendingWait, None, WAIT_LIMIT)
        .await?;
    let second = standin
        .wait_until("mute", Lifecycle::PendingWait, Some(first.id()), WAIT_LIMIT)
        .await?;
    assert_ne!(first.id(), second.id());
    assert!(!was_in_service(&protected, "mute"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn if_the_function_is_killed_while_it_waits_the_instance_is_still_restored() -> Result<()> {
    // The invocation for the launch event waits two seconds for the agent: enough time to kill it.
    let builder = StandIn::builder().registration_delay(120.0);
    let protected = ProtectedGroups::with(builder).await?;
    let function = protected.standin.function("restore")?;
    protected
        .standin
        .create_group(protected.describe("killed")?)?;
    let is_waiting = || {
        let lines = protected.log(0);
        lines.iter().any(|line| line.has_decision("wait-for-agent"))
    };
    wait_until("the function to wait for the agent", is_waiting).await?;
    let processes = protected.standin.lambda().processes(&function);
    let processes: Vec<i32> = processes
        .into_iter()
        .filter_map(|number| i32::try_from(number).ok())
        .collect();
    processes::kill(&processes)?;
    let node = protected.wait_until_in_service("killed", None).await?;
    let report = protected.restore_report(&node).await?;
    assert_eq!(report.outcome, RestoreOutcome::FirstBoot);
    Ok(())
}

/// Stalls downloads of the main database's dump; the returned flag is set when one is stalled.
fn stall_dump_downloads(protected: &ProtectedGroups) -> Arc<AtomicBool> {
    let reached = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&reached);
    protected.standin.s3().on_request(move |call| {
        let stalls = call.operation == "GetObject" && call.key.ends_with(DUMP);
        if stalls {
            flag.store(true, Ordering::SeqCst);
        }
        stalls.then_some(S3Fault::Stall(WAIT_LIMIT))
    });
    reached
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_during_its_restore_is_replaced_by_a_restored_one() -> Result<()> {
    let (protected, lost, _, data) = backed_up("unlucky").await?;
    let reached = stall_dump_downloads(&protected);
    let standin = &protected.standin;
    standin.kill_instance(lost.id()).await?;
    wait_until("a restore to download the dump", || {
        reached.load(Ordering::SeqCst)
    })
    .await?;
    let unlucky = standin
        .wait_until(
            "unlucky",
            Lifecycle::PendingWait,
            Some(lost.id()),
            WAIT_LIMIT,
        )
        .await?;
    standin.s3().clear_hook();
    standin.kill_instance(unlucky.id()).await?;
    // The group replaces the dead node when its hook expires. An operator may act on the alarm before that.
    let replaced = protected
        .wait_until_in_service("unlucky", Some(&lost))
        .await?;
    assert_ne!(replaced.id(), unlucky.id());
    assert_restored(&standalone::snapshot(&replaced).await?, &data);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_of_a_killed_restore_are_removed_when_its_command_is_sent_again() -> Result<()> {
    let (protected, _node, manifest, data) = backed_up("halfway").await?;
    let standalone = StandaloneNode::with_data(&protected, "halfway").await?;
    let before = standalone.snapshot().await?;
    let candidates = [manifest.candidate()];
    let operation = format!("launch-{}", standalone.node.id());

    let reached = stall_dump_downloads(&protected);
    let agent = standalone.start_restore(&operation, &candidates)?;
    wait_until("the restore to download the dump", || {
        reached.load(Ordering::SeqCst)
    })
    .await?;
    processes::kill(&processes::find(
        &standalone.node,
        &["rekindle-node", "restore"],
    )?)?;
    let killed = standalone::wait_for_exit(agent).await?;
    assert_eq!(killed.code, None, "{killed:?}");
    protected.standin.s3().clear_hook();
    let interrupted = standalone.snapshot().await?;
    assert!(
        interrupted.databases.len() > before.databases.len(),
        "the killed restore left no database"
    );
    assert!(!standalone.node.marker().exists());

    let answer = standalone.restore(&operation, &candidates).await?;
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let after = standalone.snapshot().await?;
    assert_eq!(after.files, data.files);
    assert_eq!(after.beside, before.beside);
    // The databases of the application are those of the backup. A database that is in no backup is not touched.
    let names: Vec<&String> = after.databases.keys().collect();
    assert_eq!(names, ["diary", "notary", "postgres"]);
    for (name, rows) in &data.databases {
        assert!(after.databases.get(name) == Some(rows), "{name} differs");
    }

    // The same command again is answered with the recorded report. Another command finds the node restored and changes
    // nothing.
    let main = standalone.node.cluster()?.connect(MAIN_DATABASE).await?;
    main.batch_execute("CREATE TABLE public.later AS SELECT 1 AS one")
        .await?;
    drop(main);
    let live = standalone.snapshot().await?;
    let repeated = standalone.restore(&operation, &candidates).await?;
    assert_eq!(repeated.report()?, answer.report()?);
    let another = standalone.restore("launch-i-0000000a", &candidates).await?;
    let Report::Restore(another) = another.report()? else {
        anyhow::bail!("{another:?}");
    };
    let backup_id = candidates.first().map(|it| it.backup_id.clone());
    assert_eq!(
        another.outcome,
        RestoreOutcome::AlreadyRestored { backup_id }
    );
    assert!(
        standalone.snapshot().await? == live,
        "live data were changed"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_about_entering_a_warm_pool_admits_no_unrestored_instance() -> Result<()> {
    let (protected, lost, _, data) = backed_up("pool").await?;
    let standin = &protected.standin;
    standin.bus().inject(LAUNCH, DeliveryFault::Drop, 1);
    standin.kill_instance(lost.id()).await?;
    let node = standin
        .wait_until("pool", Lifecycle::PendingWait, Some(lost.id()), WAIT_LIMIT)
        .await?;
    let mut event = event("launch-into-warm-pool.json")?;
    event["detail"]["EC2InstanceId"] = node.id().into();
    event["detail"]["AutoScalingGroupName"] = "pool".into();
    standin.bus().put(event);
    let node = protected.wait_until_in_service("pool", Some(&lost)).await?;
    assert_restored(&standalone::snapshot(&node).await?, &data);
    assert_eq!(admissions(&protected, &node), 1);
    Ok(())
}
