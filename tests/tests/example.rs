//! A first end-to-end test. tests/README.md shows and explains it.

use anyhow::Result;
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use rekindle_tests::fixtures::standalone::snapshot;
use rekindle_tests::standin::bus::DeliveryFault;

#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_launch_event_the_replacement_still_has_the_data() -> Result<()> {
    // A local AWS with one Auto Scaling group. Its node runs a small registry: Postgres and configuration files.
    let (protected, node) = ProtectedGroups::with_filled_group("first").await?;
    protected.back_up("first").await?;
    let before = snapshot(&node).await?;

    // The fault: EventBridge loses the event that starts the restore.
    let launch = "EC2 Instance-launch Lifecycle Action";
    let bus = protected.standin.bus();
    bus.inject(launch, DeliveryFault::Drop, 1);

    // The node loses power. A sweep, which runs once a minute, finds the new instance and starts its restore.
    let replacement = protected.replace_lost(&node).await?;
    let after = snapshot(&replacement).await?;
    assert!(after.databases == before.databases && after.files == before.files);
    Ok(())
}
