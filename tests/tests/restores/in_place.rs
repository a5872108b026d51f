//! In-place restores: a backup that the operator chooses replaces the data of a node in service, after a backup of that
//! data.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use rekindle_tests::fixtures::processes;
use rekindle_tests::fixtures::protected_groups::{Invocation, ProtectedGroups, WAIT_LIMIT};
use rekindle_tests::fixtures::registry::{CONFIGURATION, MAIN_DATABASE};
use rekindle_tests::fixtures::standalone;
use rekindle_tests::nodes::machine::Node;
use rekindle_tests::wait::wait_for;
use shared::command::Purpose;
use shared::id::BackupId;
use shared::manifest::Lineage;

use super::backed_up;

/// Adds a table and a file, as a mistake that is noticed too late.
async fn add_mistake(node: &Node) -> Result<()> {
    let client = node.cluster()?.connect(MAIN_DATABASE).await?;
    client
        .batch_execute("CREATE TABLE mistake AS SELECT i FROM generate_series(1, 1000) i")
        .await?;
    std::fs::write(
        node.root().join(CONFIGURATION[0]).join("mistake.yml"),
        "mistake: yes\n",
    )?;
    Ok(())
}

/// Requests the in-place restore, and checks that it is accepted.
async fn request_accepted(
    protected: &ProtectedGroups,
    application: &str,
    backup: &BackupId,
) -> Result<()> {
    let answer = protected
        .request("restore-backup", application, backup)
        .await?;
    assert_eq!(answer["outcome"], "requested", "{answer}");
    Ok(())
}

/// Requests the in-place restore; returns its command when it has ended.
async fn restore_in_place(
    protected: &ProtectedGroups,
    node: &Node,
    application: &str,
    backup: &BackupId,
) -> Result<Invocation> {
    let before = protected.invocations(node, "restore").await?.len();
    request_accepted(protected, application, backup).await?;
    let ended = protected.wait_until_ended(node, "restore", before);
    protected.with_sweeps(ended).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chosen_backup_is_restored_in_place_after_a_backup_of_the_current_data() -> Result<()> {
    const APPLICATION: &str = "chosen";
    let (protected, node, wanted, data) = backed_up(APPLICATION).await?;
    add_mistake(&node).await?;
    let with_mistake = standalone::snapshot(&node).await?;
    let ended = restore_in_place(&protected, &node, APPLICATION, &wanted.index.backup_id).await?;
    assert_eq!(ended.status, "Success", "{ended:?}");
    assert!(standalone::snapshot(&node).await?.is_same_as(&data));
    let before = protected.wait_for_backup(APPLICATION, 1).await?;
    assert_eq!(before.index.purpose, Purpose::PreRestore);
    let commands = protected.invocations(&node, "restore").await?.len();
    // Further sweeps send no second command.
    for _ in 0..3 {
        protected.standin.sweep();
        protected.wait_until_idle().await?;
    }
    assert_eq!(
        protected.invocations(&node, "restore").await?.len(),
        commands
    );

    // The next backups of the node are committed, and the replaced data can be restored in the same way.
    let after = protected.back_up(APPLICATION).await?;
    let backup_id = wanted.index.backup_id.clone();
    let lineage = Lineage::Restored {
        backup_id,
        skipped: vec![],
    };
    assert_eq!(after.index.node.lineage, lineage);
    let ended = restore_in_place(&protected, &node, APPLICATION, &before.index.backup_id).await?;
    assert_eq!(ended.status, "Success", "{ended:?}");
    assert!(standalone::snapshot(&node).await?.is_same_as(&with_mistake));
    assert!(
        protected.errors(APPLICATION).is_empty(),
        "{:#?}",
        protected.errors(APPLICATION)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_in_place_restore_is_started_again() -> Result<()> {
    const APPLICATION: &str = "killed";
    let (protected, node, wanted, data) = backed_up(APPLICATION).await?;
    add_mistake(&node).await?;
    // The agent is killed when it downloads the first dump.
    let (killed, victim) = (Arc::new(AtomicBool::new(false)), Arc::clone(&node));
    let once = Arc::clone(&killed);
    protected.standin.s3().on_request(move |call| {
        let dump = call.key.ends_with(".dump.zst");
        if call.operation == "GetObject" && dump && !once.load(Ordering::SeqCst) {
            let found = processes::find(&victim, &["rekindle-node"]);
            let done = found.and_then(|found| processes::kill(&found));
            once.store(done.is_ok(), Ordering::SeqCst);
        }
        None
    });
    let before = protected.invocations(&node, "restore").await?.len();
    request_accepted(&protected, APPLICATION, &wanted.index.backup_id).await?;
    let again = wait_for("the restore to be sent again", WAIT_LIMIT, async || {
        let all = protected.invocations(&node, "restore").await;
        let all = all.map_err(|error| format!("{error:#}"))?;
        let own = all.get(before..).unwrap_or_default();
        if own.iter().any(|one| one.status == "Success") {
            Ok(Some(()))
        } else {
            Err(format!("{own:?}"))
        }
    });
    protected.with_sweeps(again).await?;
    protected.standin.s3().clear_hook();
    assert!(killed.load(Ordering::SeqCst), "the agent was not killed");
    assert!(standalone::snapshot(&node).await?.is_same_as(&data));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_in_place_restore_changes_nothing_on_the_node() -> Result<()> {
    const APPLICATION: &str = "spared";
    let (protected, node, wanted, _) = backed_up(APPLICATION).await?;
    add_mistake(&node).await?;
    let with_mistake = standalone::snapshot(&node).await?;
    // A dump of the chosen backup is damaged at rest: only reading it to its end shows it.
    let standin = &protected.standin;
    let key = &wanted.index.databases[0].key;
    standin.s3().flip_middle(standin.bucket(), key)?;
    let ended = restore_in_place(&protected, &node, APPLICATION, &wanted.index.backup_id).await?;
    assert_eq!(ended.status, "Failed", "{ended:?}");
    assert!(standalone::snapshot(&node).await?.is_same_as(&with_mistake));
    // The node is backed up again, with the same lineage.
    let after = protected.back_up(APPLICATION).await?;
    assert_eq!(after.index.node.lineage, wanted.index.node.lineage);
    Ok(())
}
