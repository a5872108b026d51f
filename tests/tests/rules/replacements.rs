//! During a replacement there are two nodes, and one of them at the most writes backups.

use anyhow::{Context as _, Result};
use rekindle_tests::nodes::protected::{PATIENCE, Protected};
use rekindle_tests::nodes::spare;
use rekindle_tests::standin::autoscaling::Lifecycle;
use rekindle_tests::standin::bus::Mishap;
use rekindle_tests::wait::wait_for;
use shared::command::Purpose;
use shared::id::BackupId;
use shared::report::Report;

#[tokio::test(flavor = "multi_thread")]
async fn an_old_node_and_its_replacement_never_write_backups_at_the_same_time() -> Result<()> {
    let (protected, node) = Protected::one("retired").await?;
    let (world, bus) = (&protected.world, protected.world.bus());
    let held = spare::holding(&node).await?;
    // Its end is not heard of, so that it stays in its hook.
    bus.mishap_where(
        |event| event["detail"]["status"] == "Success",
        Mishap::Drop,
        1,
    );
    world.terminate(node.id()).await?;
    let ended = protected.ended(&node, "backup", 0).await?;
    assert_eq!(ended.status, "Success", "{ended:?}");

    let ssm = aws_sdk_ssm::Client::new(world.aws());
    let listed = ssm
        .list_commands()
        .command_id(&ended.command_id)
        .send()
        .await?;
    let command = listed.commands().first().context("the command is gone")?;
    let mut parameters = command.parameters().context("parameters")?.clone();
    let again = BackupId::at(time::OffsetDateTime::now_utc());
    for (name, value) in [
        ("OperationId", again.as_str()),
        ("BackupId", again.as_str()),
        ("Purpose", "scheduled"),
    ] {
        parameters.insert(name.to_owned(), vec![value.to_owned()]);
    }
    ssm.send_command()
        .document_name(protected.document("backup")?)
        .instance_ids(node.id())
        .timeout_seconds(30)
        .set_parameters(Some(parameters))
        .send()
        .await?;
    let refused = protected.ended(&node, "backup", 1).await?;
    assert_eq!(refused.code, 13, "{refused:?}");
    assert!(matches!(
        Report::from_output(&refused.output)?,
        Report::Failure(_)
    ));

    // The final backup is not committed yet, so nothing may have been restored elsewhere.
    let state = |id: &str| {
        let members = world.group("retired").into_iter();
        members
            .filter(|one| one.id == id)
            .map(|one| one.state)
            .next()
    };
    assert_eq!(state(node.id()), Some(Lifecycle::TerminatingWait));
    let next = wait_for("the replacement to wait", PATIENCE, async || {
        let mut next = world.group("retired").into_iter();
        let next = next.rfind(|one| one.id != node.id());
        Ok::<_, String>(next.filter(|one| one.state == Lifecycle::PendingWait))
    })
    .await?;
    let next = world.node(&next.id)?;
    assert!(protected.invocations(&next, "restore").await?.is_empty());
    let arrived = protected.in_service("retired", Some(&node)).await?;
    assert_eq!(arrived.id(), next.id());
    let backups = protected.backups("retired")?;
    assert_eq!(backups.len(), 1, "{backups:?}");
    let manifest = protected.manifest("retired", &backups[0])?;
    assert_eq!(manifest.index.purpose, Purpose::Final);
    assert!(spare::holding(&arrived).await?.databases == held.databases);
    Ok(())
}
