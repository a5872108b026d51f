//! Complete but suspicious backups are quarantined until an operator accepts or rejects them.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use rekindle_tests::fixtures::protected_groups::{ProtectedGroups, WAIT_LIMIT};
use rekindle_tests::fixtures::registry::{MAIN_DATABASE, NOTARY_DATABASE};
use rekindle_tests::fixtures::standalone;
use rekindle_tests::fixtures::standalone::DataSnapshot;
use rekindle_tests::nodes::machine::Node;
use rekindle_tests::standin::bus::DeliveryFault;
use rekindle_tests::standin::ssm::reports_success;
use serde_json::{Value, json};
use shared::id::BackupId;
use shared::manifest::Lineage;

/// Returns the first row of `list-backups`: the application's newest backup as an operator sees it.
async fn newest(protected: &ProtectedGroups, application: &str) -> Result<Value> {
    let event = json!({"rekindle": "list-backups", "application": application, "limit": 1});
    let answer = protected.invoke("backup", event).await?;
    let newest = answer["backups"].get(0);
    newest.cloned().with_context(|| format!("{answer}"))
}

/// Truncates the tables of both databases, as a mistake or an attack may.
async fn wipe(node: &Node) -> Result<()> {
    let cluster = node.cluster()?;
    for database in [MAIN_DATABASE, NOTARY_DATABASE] {
        let client = cluster.connect(database).await?;
        let tables =
            "SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') FROM pg_tables
            WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
        let tables: Option<String> = client.query_one(tables, &[]).await?.get(0);
        let tables = tables.context("the database has tables")?;
        client
            .batch_execute(&format!("TRUNCATE {tables} CASCADE"))
            .await?;
    }
    Ok(())
}

/// An application with a good backup, and a newer one without rows that is quarantined.
struct Wiped {
    protected: ProtectedGroups,
    node: Arc<Node>,
    good: BackupId,
    /// The data of the node when the good backup was taken.
    data: DataSnapshot,
    quarantined: BackupId,
}

impl Wiped {
    /// Starts the application, takes the good backup, and wipes the node before the next one.
    async fn start(application: &str) -> Result<Self> {
        let (protected, node) = ProtectedGroups::with_filled_group(application).await?;
        let good = protected.back_up(application).await?.index.backup_id;
        let data = standalone::snapshot(&node).await?;
        wipe(&node).await?;
        protected.standin.tick();
        let message = protected
            .wait_for_failure(application, "QuarantinedLoss")
            .await?;
        assert!(message.contains(good.as_str()), "{message}");
        assert_eq!(protected.backups(application)?, std::slice::from_ref(&good));
        let newest = newest(&protected, application).await?;
        let reason = newest["quarantined_for"].as_str().unwrap_or_default();
        assert!(reason.contains("it has 0 rows"), "{newest}");
        let quarantined = serde_json::from_value(newest["backup_id"].clone())?;
        Ok(Self {
            protected,
            node,
            good,
            data,
            quarantined,
        })
    }

    /// Kills the node; returns the data of its replacement.
    async fn data_after_loss(&self) -> Result<DataSnapshot> {
        let node = self.protected.replace_lost(&self.node).await?;
        standalone::snapshot(&node).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_backup_is_not_restored_and_raises_alarms_until_it_is_rejected() -> Result<()>
{
    let wiped = Wiped::start("wiped").await?;
    let data = wiped.data_after_loss().await?;
    assert!(
        data.is_same_as(&wiped.data),
        "the wiped database was restored"
    );

    // The replacement continues from the good backup, so its own backups are committed again.
    let manifest = wiped.protected.back_up("wiped").await?;
    assert_eq!(
        manifest.index.rows(),
        wiped.protected.manifest("wiped", &wiped.good)?.index.rows()
    );
    // The alarm is raised until an operator accepts or rejects the backup.
    let alarms = || {
        let lines = wiped.protected.metrics(0);
        lines
            .iter()
            .filter(|line| line.value("BackupsQuarantined") == Some(1.0))
            .count()
    };
    assert!(alarms() > 0);
    let answer = wiped
        .protected
        .request("reject-quarantined", "wiped", &wiped.quarantined)
        .await?;
    assert_eq!(answer["outcome"], "done", "{answer}");
    let before = alarms();
    wiped.protected.back_up("wiped").await?;
    assert_eq!(alarms(), before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_backup_is_restored_and_accepting_twice_changes_nothing() -> Result<()> {
    let wiped = Wiped::start("meant").await?;
    for decision in ["accept", "already-committed"] {
        let answer = wiped
            .protected
            .request("accept-quarantined", "meant", &wiped.quarantined)
            .await?;
        assert_eq!(answer["decision"], decision, "{answer}");
    }
    assert_eq!(
        wiped.protected.backups("meant")?,
        [wiped.good.clone(), wiped.quarantined.clone()]
    );
    let standin = &wiped.protected.standin;
    assert!(
        standin
            .s3()
            .keys(standin.bucket(), "quarantine/meant/")?
            .is_empty()
    );
    assert!(
        standin
            .s3()
            .keys(standin.bucket(), "pins/meant/")?
            .is_empty()
    );
    let data = wiped.data_after_loss().await?;
    let rows = |data: &DataSnapshot| {
        data.databases[MAIN_DATABASE]
            .values()
            .map(Vec::len)
            .sum::<usize>()
    };
    assert!(rows(&wiped.data) > 0);
    assert_eq!(rows(&data), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_nodes_backup_that_arrives_after_its_successors_restore_is_quarantined() -> Result<()>
{
    let (protected, node) = ProtectedGroups::with_filled_group("late").await?;
    let first = protected.back_up("late").await?;
    let data = standalone::snapshot(&node).await?;
    // The node's next backup is complete, but its event is delayed until after the loss of the node.
    let succeeded = |event: &Value| {
        let document = event["detail"]["document-name"].as_str();
        reports_success(event) && document.is_some_and(|name| name.contains("backup"))
    };
    protected
        .standin
        .bus()
        .inject_where(succeeded, DeliveryFault::Hold, 1);
    let client = node.cluster()?.connect(MAIN_DATABASE).await?;
    client
        .batch_execute("CREATE TABLE late AS SELECT 1 AS one")
        .await?;
    drop(client);
    protected.standin.tick();
    protected.wait_until_ended(&node, "backup", 1).await?;
    protected.standin.kill_instance(node.id()).await?;
    // No sweep: it would commit the backup while the node is still a member of the group.
    let arrival = protected
        .standin
        .wait_until_in_service("late", Some(node.id()), WAIT_LIMIT);
    let successor = arrival.await?;
    assert!(standalone::snapshot(&successor).await?.is_same_as(&data));

    protected.standin.bus().release();
    protected
        .wait_for_failure("late", "QuarantinedSuperseded")
        .await?;
    let only = std::slice::from_ref(&first.index.backup_id);
    assert_eq!(protected.backups("late")?, only);
    // The successor's backups are committed.
    let next = protected.back_up("late").await?;
    assert_eq!(next.index.node.instance_id.as_str(), successor.id());
    assert_eq!(protected.backups("late")?.len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_of_a_node_that_was_restored_from_a_fallback_are_committed() -> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group("fallen").await?;
    let older = protected.back_up("fallen").await?;
    let newest = protected.back_up("fallen").await?;
    let standin = &protected.standin;
    let key = &newest.index.databases[0].key;
    standin.s3().flip_middle(standin.bucket(), key)?;
    protected.replace_lost(&node).await?;
    let next = protected.back_up("fallen").await?;
    let lineage = Lineage::Restored {
        backup_id: older.index.backup_id,
        skipped: vec![newest.index.backup_id],
    };
    assert_eq!(next.index.node.lineage, lineage);
    assert!(
        standin
            .s3()
            .keys(standin.bucket(), "quarantine/fallen/")?
            .is_empty()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_about_backups_that_do_not_exist_are_refused() -> Result<()> {
    let (protected, _node) = ProtectedGroups::with_filled_group("nothing").await?;
    let unknown = "20200101T000000.000Z".parse()?;
    for one in [
        "accept-quarantined",
        "reject-quarantined",
        "pin",
        "restore-backup",
    ] {
        let answer = protected.request(one, "nothing", &unknown).await?;
        assert_eq!(answer["outcome"], "refused", "{one}: {answer}");
        let message = answer["reason"].as_str().unwrap_or_default();
        assert!(message.contains("has no backup"), "{one}: {answer}");
    }
    let without_backup = json!({"rekindle": "restore-backup", "application": "nothing"});
    assert!(protected.invoke("backup", without_backup).await.is_err());
    Ok(())
}
