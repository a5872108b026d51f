//! Which backups a tick starts, and which groups it skips.

use anyhow::{Context as _, Result};
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use rekindle_tests::fixtures::registry::{MAIN_DATABASE, block_dumps};
use rekindle_tests::standin::fault::ApiError;
use time::{Duration, OffsetDateTime};
use tokio::try_join;

use super::{runs, tick};

#[tokio::test(flavor = "multi_thread")]
async fn one_tick_backs_up_every_group_with_one_command_and_duplicates_of_it_add_no_backup()
-> Result<()> {
    let protected = ProtectedGroups::start().await?;
    let applications = ["first", "second", "third"];
    try_join!(
        protected.create_filled(applications[0]),
        protected.create_filled(applications[1]),
        protected.create_empty(applications[2])
    )?;

    protected.standin.lambda().duplicate_next(1);
    let at = OffsetDateTime::now_utc();
    protected.standin.bus().tick(at);
    for application in applications {
        let manifest = protected.wait_for_backup(application, 0).await?;
        assert_eq!(manifest.index.application.as_str(), application);
    }
    protected.wait_until_idle().await?;

    // The same tick is delivered again, much later.
    let again = protected
        .invoke("backup", tick(at.replace_nanosecond(0)?)?)
        .await?;
    assert_eq!(
        again["started"].as_array().map(Vec::len),
        Some(0),
        "{again}"
    );
    for skipped in again["skipped"].as_array().context("skipped")? {
        let reason = skipped["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("already requested this backup"), "{again}");
    }
    // A tick that is too old is skipped, because the next tick will back up.
    let late = protected
        .invoke("backup", tick(at - Duration::minutes(11))?)
        .await?;
    assert_eq!(late["started"].as_array().map(Vec::len), Some(0), "{late}");
    let reason = late["skipped"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("the next tick will back up"), "{late}");

    for application in applications {
        assert_eq!(protected.backups(application)?.len(), 1, "{application}");
        assert_eq!(runs(&protected, application)?.len(), 1, "{application}");
    }
    // If the duplicate arrives before SSM lists the first command, it sends a second one, and the node answers that with the
    // first report.
    let sent = protected.standin.ssm().sent()[&protected.document("backup")?];
    assert!((1..=2).contains(&sent), "{sent} commands");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn if_ssm_rejects_one_instance_the_others_of_its_batch_are_still_backed_up() -> Result<()> {
    let protected = ProtectedGroups::start().await?;
    let (gone, unregistered, ..) = try_join!(
        protected.create_empty("gone"),
        protected.create_empty("unregistered"),
        protected.create_empty("good"),
        protected.create_empty("fine")
    )?;

    // One instance is terminated outside Auto Scaling, and SSM still lists its agent as online.
    gone.discard().await?;
    protected.standin.ssm().deregister(unregistered.id());
    let at = OffsetDateTime::now_utc();
    let answer = protected.invoke("backup", tick(at)?).await?;
    assert_eq!(
        answer["started"].as_array().map(Vec::len),
        Some(2),
        "{answer}"
    );
    assert_eq!(answer["failures"], 1, "{answer}");
    let message = protected.wait_for_failure("gone", "Refused").await?;
    assert!(message.contains(gone.id()), "{message}");
    let skipped = &answer["skipped"][0];
    assert_eq!(skipped["group"], "unregistered", "{answer}");
    let reason = skipped["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains(unregistered.id()) && reason.contains("is not registered"),
        "{reason}"
    );
    for application in ["good", "fine"] {
        protected.wait_for_backup(application, 0).await?;
    }

    // SSM rejects a batch once although every instance in it is valid. All of them are still backed up.
    let fault = ApiError::new("InvalidInstanceId", "Instances not in a valid state");
    protected.standin.faults().plan("SendCommand", fault, 1);
    let answer = protected
        .invoke("backup", tick(at + Duration::seconds(5))?)
        .await?;
    assert_eq!(
        answer["started"].as_array().map(Vec::len),
        Some(2),
        "{answer}"
    );
    for application in ["good", "fine"] {
        protected.wait_for_backup(application, 1).await?;
    }
    assert!(protected.backups("gone")?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_skips_a_node_that_executes_a_command() -> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group("busy").await?;
    let blocker = block_dumps(&node).await?;
    let at = OffsetDateTime::now_utc();
    let first = protected.invoke("backup", tick(at)?).await?;
    let command = first["started"][0]["command_id"]
        .as_str()
        .context("no command was started")?;
    // SSM does not list a command in its first seconds. Until then, a second command would be sent and fail as busy.
    protected.wait_until_executing(&node, "backup", 1).await?;

    let second = protected
        .invoke("backup", tick(at + Duration::seconds(2))?)
        .await?;
    let expected = format!("the command {command} is executing");
    assert_eq!(
        second["skipped"][0]["reason"],
        expected.as_str(),
        "{second}"
    );
    let lines = protected.log(0);
    let logged = lines
        .iter()
        .any(|line| line.has_decision("skip") && line.reason.as_deref() == Some(expected.as_str()));
    assert!(logged, "{lines:#?}");

    drop(blocker);
    protected.wait_for_backup("busy", 0).await?;
    protected.wait_until_idle().await?;
    assert_eq!(runs(&protected, "busy")?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn leftover_databases_of_a_restore_are_never_backed_up() -> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group("left").await?;
    let client = node.cluster()?.connect(MAIN_DATABASE).await?;
    for leftover in ["rekindle__restore_0a1b2c3d_0", "rekindle__old_0a1b2c3d_0"] {
        client
            .batch_execute(&format!("CREATE DATABASE {leftover}"))
            .await?;
    }
    let manifest = protected.back_up("left").await?;
    let mut names: Vec<&str> = manifest
        .index
        .databases
        .iter()
        .map(|database| database.name.as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["notary", "postgres"]);
    Ok(())
}
