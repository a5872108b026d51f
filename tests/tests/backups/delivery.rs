//! Events are hints: lost, doubled and reordered ones change nothing about what is committed.

use anyhow::Result;
use rekindle_tests::nodes::protected::Protected;
use rekindle_tests::standin::bus::Mishap;
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::{ask, attempts, event, tick};

/// Recognises the event of a backup command that ended well.
pub(crate) fn succeeded(event: &Value) -> bool {
    event["detail-type"] == "EC2 Command Invocation Status-change Notification"
        && event["detail"]["status"] == "Success"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_event_is_made_good_by_the_next_tick_or_by_a_sweep() -> Result<()> {
    let (protected, node) = Protected::one("lost").await?;
    let bus = protected.world.bus();
    let at = OffsetDateTime::now_utc();

    bus.mishap_where(succeeded, Mishap::Drop, 1);
    bus.tick(at);
    protected.ended(&node, "backup", 0).await?;
    protected.quiet().await?;
    assert!(protected.backups("lost")?.is_empty());
    let answer = ask(&protected, event("sweep.json")?).await?;
    assert_eq!(answer["caught_up"][0]["decision"], "committed", "{answer}");
    assert_eq!(protected.backups("lost")?.len(), 1);

    bus.mishap_where(succeeded, Mishap::Drop, 1);
    bus.tick(at + Duration::seconds(2));
    protected.ended(&node, "backup", 1).await?;
    protected.quiet().await?;
    assert_eq!(protected.backups("lost")?.len(), 1);
    let answer = ask(&protected, tick(at + Duration::seconds(4))?).await?;
    assert_eq!(answer["caught_up"][0]["decision"], "committed", "{answer}");
    protected.committed("lost", 2).await?;
    assert_eq!(attempts(&protected, "lost")?.len(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn doubled_and_reordered_events_commit_each_backup_once() -> Result<()> {
    let (protected, node) = Protected::one("doubled").await?;
    let bus = protected.world.bus();
    let at = OffsetDateTime::now_utc();

    bus.mishap_where(succeeded, Mishap::Duplicate, 1);
    bus.tick(at);
    let first = protected.committed("doubled", 0).await?;
    protected.quiet().await?;

    // The later backup's event comes before the earlier one's.
    bus.mishap_where(succeeded, Mishap::Hold, 2);
    for number in 1..=2 {
        bus.tick(at + Duration::seconds(2 * i64::from(number)));
        protected
            .ended(&node, "backup", usize::try_from(number)?)
            .await?;
        protected.quiet().await?;
    }
    bus.release();
    let last = protected.committed("doubled", 2).await?;
    protected.quiet().await?;
    let backups = protected.backups("doubled")?;
    assert_eq!(backups.len(), 3);
    assert_eq!(protected.manifest("doubled", &backups[0])?, first);
    assert_eq!(last.index.backup_id, backups[2]);

    let commits = |decision: &str| {
        let lines = protected.lines(0).into_iter();
        lines
            .filter(|line| line["fields"]["decision"] == decision)
            .count()
    };
    assert_eq!(commits("Commit"), 3);
    assert!(protected.problems("doubled").is_empty());
    Ok(())
}
