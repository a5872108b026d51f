//! During a replacement there are two nodes, and at most one of them writes backups.

use anyhow::{Context as _, Result};
use rekindle_tests::fixtures::protected_groups::{ProtectedGroups, WAIT_LIMIT};
use rekindle_tests::fixtures::standalone;
use rekindle_tests::standin::autoscaling::Lifecycle;
use rekindle_tests::standin::bus::DeliveryFault;
use rekindle_tests::wait::wait_for;
use shared::command::Purpose;
use shared::id::BackupId;
use shared::report::Report;

#[tokio::test(flavor = "multi_thread")]
async fn an_old_node_and_its_replacement_never_write_backups_at_the_same_time() -> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group("decommissioned").await?;
    let (standin, bus) = (&protected.standin, protected.standin.bus());
    let data = standalone::snapshot(&node).await?;
    // The event about the end of the final backup is lost, so the old node stays in its hook.
    bus.inject_where(
        |event| event["detail"]["status"] == "Success",
        DeliveryFault::Drop,
        1,
    );
    standin.terminate(node.id()).await?;
    let ended = protected.wait_until_ended(&node, "backup", 0).await?;
    assert_eq!(ended.status, "Success", "{ended:?}");

    let ssm = aws_sdk_ssm::Client::new(standin.aws());
    let listed = ssm
        .list_commands()
        .command_id(&ended.command_id)
        .send()
        .await?;
    let command = listed
        .commands()
        .first()
        .context("SSM does not list the command")?;
    let mut parameters = command
        .parameters()
        .context("the command has no parameters")?
        .clone();
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
    let refused = protected.wait_until_ended(&node, "backup", 1).await?;
    assert_eq!(refused.code, 13, "{refused:?}");
    assert!(matches!(
        Report::from_output(&refused.output)?,
        Report::Failure(_)
    ));

    // The final backup is not committed yet, so no other node may have been restored.
    let state = |id: &str| {
        let members = standin.group("decommissioned").into_iter();
        members
            .filter(|one| one.id == id)
            .map(|one| one.state)
            .next()
    };
    assert_eq!(state(node.id()), Some(Lifecycle::TerminatingWait));
    let next = wait_for("the replacement to wait", WAIT_LIMIT, async || {
        let mut next = standin.group("decommissioned").into_iter();
        let next = next.rfind(|one| one.id != node.id());
        Ok::<_, String>(next.filter(|one| one.state == Lifecycle::PendingWait))
    })
    .await?;
    let next = standin.node(&next.id)?;
    assert!(protected.invocations(&next, "restore").await?.is_empty());
    let arrived = protected
        .wait_until_in_service("decommissioned", Some(&node))
        .await?;
    assert_eq!(arrived.id(), next.id());
    let backups = protected.backups("decommissioned")?;
    assert_eq!(backups.len(), 1, "{backups:?}");
    let manifest = protected.manifest("decommissioned", &backups[0])?;
    assert_eq!(manifest.index.purpose, Purpose::Final);
    assert!(standalone::snapshot(&arrived).await?.databases == data.databases);
    Ok(())
}
