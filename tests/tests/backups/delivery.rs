//! Lost, duplicated and reordered events do not change which backups are committed.

use anyhow::Result;
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use rekindle_tests::standin::bus::DeliveryFault;
use rekindle_tests::standin::ssm::reports_success;
use time::{Duration, OffsetDateTime};

use super::{event, runs, tick};

#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_event_the_next_tick_or_a_sweep_commits_the_backup() -> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group("lost").await?;
    let bus = protected.standin.bus();
    let at = OffsetDateTime::now_utc();

    bus.inject_where(reports_success, DeliveryFault::Drop, 1);
    bus.tick(at);
    protected.wait_until_ended(&node, "backup", 0).await?;
    protected.wait_until_idle().await?;
    assert!(protected.backups("lost")?.is_empty());
    let answer = protected.invoke("backup", event("sweep.json")?).await?;
    assert_eq!(answer["handled"][0]["decision"], "commit", "{answer}");
    assert_eq!(protected.backups("lost")?.len(), 1);

    bus.inject_where(reports_success, DeliveryFault::Drop, 1);
    bus.tick(at + Duration::seconds(2));
    protected.wait_until_ended(&node, "backup", 1).await?;
    protected.wait_until_idle().await?;
    assert_eq!(protected.backups("lost")?.len(), 1);
    let answer = protected
        .invoke("backup", tick(at + Duration::seconds(4))?)
        .await?;
    assert_eq!(answer["handled"][0]["decision"], "commit", "{answer}");
    protected.wait_for_backup("lost", 2).await?;
    assert_eq!(runs(&protected, "lost")?.len(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicated_and_reordered_events_commit_each_backup_once() -> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group("duplicated").await?;
    let bus = protected.standin.bus();
    let at = OffsetDateTime::now_utc();

    bus.inject_where(reports_success, DeliveryFault::Duplicate, 1);
    bus.tick(at);
    let first = protected.wait_for_backup("duplicated", 0).await?;
    protected.wait_until_idle().await?;

    // The later backup's event arrives before the earlier backup's event.
    bus.inject_where(reports_success, DeliveryFault::Hold, 2);
    for number in 1..=2 {
        bus.tick(at + Duration::seconds(2 * i64::from(number)));
        protected
            .wait_until_ended(&node, "backup", usize::try_from(number)?)
            .await?;
        protected.wait_until_idle().await?;
    }
    bus.release();
    let last = protected.wait_for_backup("duplicated", 2).await?;
    protected.wait_until_idle().await?;
    let backups = protected.backups("duplicated")?;
    assert_eq!(backups.len(), 3);
    assert_eq!(protected.manifest("duplicated", &backups[0])?, first);
    assert_eq!(last.index.backup_id, backups[2]);

    let commits = |decision: &str| {
        let lines = protected.log(0).into_iter();
        lines.filter(|line| line.has_decision(decision)).count()
    };
    assert_eq!(commits("commit"), 3);
    assert!(protected.errors("duplicated").is_empty());
    Ok(())
}
