//! A node is in service with the data of its application's newest backup, or not at all.

use std::collections::BTreeSet;

use anyhow::Result;
use rekindle_tests::fixtures::protected_groups::{ProtectedGroups, WAIT_LIMIT};
use rekindle_tests::fixtures::registry::MAIN_DATABASE;
use rekindle_tests::fixtures::standalone;
use rekindle_tests::nodes::machine::Node;
use rekindle_tests::standin::autoscaling::Lifecycle;
use rekindle_tests::standin::bus::DeliveryFault;
use rekindle_tests::wait::wait_for;
use shared::layout;

/// Completes the launch hook of an instance with CONTINUE, as an operator could.
async fn admit_by_hand(protected: &ProtectedGroups, node: &Node) -> Result<()> {
    aws_sdk_autoscaling::Client::new(protected.standin.aws())
        .complete_lifecycle_action()
        .auto_scaling_group_name(node.group())
        .lifecycle_hook_name("rekindle-launch")
        .instance_id(node.id())
        .lifecycle_action_result("CONTINUE")
        .send()
        .await?;
    Ok(())
}

/// Fires a tick for each instance that waits in its launch hook, until two launches after the first `before` ones are
/// abandoned. Checks that none of them succeeds. Returns the ids of the instances that waited.
async fn tick_until_two_launches_are_abandoned(
    protected: &ProtectedGroups,
    group: &str,
    before: usize,
) -> Result<BTreeSet<String>> {
    let standin = &protected.standin;
    let mut ticked = BTreeSet::new();
    let abandoned = wait_for("two abandoned launches", WAIT_LIMIT, async || {
        let waiting = standin.group(group).into_iter();
        let waiting = waiting.filter(|one| one.state == Lifecycle::PendingWait);
        for instance in waiting {
            if ticked.insert(instance.id) {
                standin.tick();
            }
        }
        let launches = protected.launches(group).await;
        let launches = launches.map_err(|error| format!("{error:#}"))?;
        let since = launches.get(before..).unwrap_or_default();
        assert!(
            !since.iter().any(|status| status == "Successful"),
            "{since:?}"
        );
        let cancelled = since.iter().filter(|status| *status == "Cancelled");
        if cancelled.count() >= 2 {
            Ok(Some(()))
        } else {
            Err(format!("{since:?}"))
        }
    });
    protected.with_sweeps(abandoned).await?;
    Ok(ticked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_or_empty_restore_never_enters_service_and_never_becomes_the_newest_backup()
-> Result<()> {
    let (protected, lost) = ProtectedGroups::with_filled_group("gated").await?;
    let (standin, bus) = (&protected.standin, protected.standin.bus());
    let manifest = protected.back_up("gated").await?;
    let data = standalone::snapshot(&lost).await?;
    // The commit marker is written after the manifest.
    protected.wait_until_idle().await?;
    let objects = standin.s3().keys(standin.bucket(), "")?;
    // One byte of the only backup is damaged, so every restore fails.
    let dump = &manifest.index.databases[0];
    standin.s3().flip_middle(standin.bucket(), &dump.key)?;

    // The worst case: the event about the failure is lost, and somebody admits the instance by hand.
    let failed = |event: &serde_json::Value| event["detail"]["status"] == "Failed";
    bus.inject_where(failed, DeliveryFault::Drop, 1);
    standin.kill_instance(lost.id()).await?;
    let empty = standin
        .wait_until("gated", Lifecycle::PendingWait, Some(lost.id()), WAIT_LIMIT)
        .await?;
    let ended = protected.wait_until_ended(&empty, "restore", 0).await?;
    assert_eq!(ended.status, "Failed", "{ended:?}");
    admit_by_hand(&protected, &empty).await?;
    standin
        .wait_until_in_service("gated", Some(lost.id()), WAIT_LIMIT)
        .await?;
    empty.cluster()?.start().await?;
    let holding = standalone::snapshot(&empty).await?;
    assert!(
        holding
            .databases
            .values()
            .all(std::collections::BTreeMap::is_empty)
    );
    standin.tick();
    let refused = protected.wait_until_ended(&empty, "backup", 0).await?;
    assert_eq!(refused.status, "Failed", "{refused:?}");
    protected.wait_until_idle().await?;
    assert_eq!(standin.s3().keys(standin.bucket(), "")?, objects);

    // If the failure is reported, no instance is admitted, however often the schedule fires.
    let before = protected.launches("gated").await?.len();
    standin.kill_instance(empty.id()).await?;
    let ticked = tick_until_two_launches_are_abandoned(&protected, "gated", before).await?;
    assert!(ticked.len() >= 2, "{ticked:?}");
    assert_eq!(standin.s3().keys(standin.bucket(), "")?, objects);

    // The backup has remained the newest, and is restored once it is repaired.
    standin.s3().flip_middle(standin.bucket(), &dump.key)?;
    let node = protected
        .wait_until_in_service("gated", Some(&empty))
        .await?;
    assert!(standalone::snapshot(&node).await?.databases == data.databases);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_whose_backups_are_gone_is_never_started_empty() -> Result<()> {
    let protected = ProtectedGroups::start().await?;
    let standin = &protected.standin;
    // The application had backups, and somebody deleted all of them.
    let ssm = aws_sdk_ssm::Client::new(standin.aws());
    ssm.put_parameter()
        .name("/rekindle/removed")
        .value(r#"{"first_backup":"20261123T021500.000Z"}"#)
        .r#type(aws_sdk_ssm::types::ParameterType::String)
        .send()
        .await?;
    standin.create_group(protected.describe("removed")?)?;
    protected.wait_for_failure("removed", "BackupsGone").await?;

    standin
        .s3()
        .deny("ListObjectsV2", standin.bucket(), "manifests/denied/");
    standin.create_group(protected.describe("denied")?)?;
    let denied = protected
        .wait_for_failure("denied", "BackupsUnknown")
        .await?;
    assert!(denied.contains("AccessDenied"), "{denied}");

    let bucket = standin.directory().join("s3").join(standin.bucket());
    std::fs::rename(&bucket, standin.directory().join("elsewhere"))?;
    standin.create_group(protected.describe("nowhere")?)?;
    let nowhere = protected
        .wait_for_failure("nowhere", "BackupsUnknown")
        .await?;
    assert!(nowhere.contains("NoSuchBucket"), "{nowhere}");

    for application in ["removed", "denied", "nowhere"] {
        // The function logs its answer before Auto Scaling acts on it.
        wait_for("the launch to be cancelled", WAIT_LIMIT, async || {
            let launches = protected.launches(application).await;
            let launches = launches.map_err(|error| format!("{error:#}"))?;
            let successful = launches.iter().any(|status| status == "Successful");
            assert!(!successful, "{launches:?}");
            let cancelled = launches.iter().any(|status| status == "Cancelled");
            cancelled
                .then_some(Some(()))
                .ok_or_else(|| format!("{launches:?}"))
        })
        .await?;
        let abandoned = "abandoned the launch; the group launches nothing for now";
        assert_eq!(protected.errors(application)[0].message, abandoned);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_backup_is_the_one_taken_last_not_the_one_uploaded_last() -> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group("order").await?;
    let older = protected.back_up("order").await?;
    let main = node.cluster()?.connect(MAIN_DATABASE).await?;
    main.batch_execute("DELETE FROM registry.tag WHERE id % 2 = 0")
        .await?;
    protected.back_up("order").await?;
    let newest = standalone::snapshot(&node).await?;

    // As after a copy of the bucket, the older backup has the later modification time.
    let (s3, bucket) = (protected.standin.s3(), protected.standin.bucket());
    let manifest = layout::manifest(&older.index.application, &older.index.backup_id);
    s3.replace(bucket, &manifest, &s3.read(bucket, &manifest)?)?;
    let listed = aws_sdk_s3::Client::new(protected.standin.aws())
        .list_objects_v2()
        .bucket(bucket)
        .prefix("manifests/order/")
        .send()
        .await?;
    let last = listed.contents().iter().max_by_key(|one| {
        let modified = one.last_modified();
        modified.map(aws_sdk_s3::primitives::DateTime::as_nanos)
    });
    assert_eq!(last.and_then(|one| one.key()), Some(&*manifest));

    let next = protected.replace_lost(&node).await?;
    assert!(standalone::snapshot(&next).await?.databases == newest.databases);
    Ok(())
}
