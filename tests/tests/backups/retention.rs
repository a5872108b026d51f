//! Retention deletes old backups only after a new backup was committed.

use anyhow::Result;
use rekindle_tests::fixtures::protected_groups::{ProtectedGroups, WAIT_LIMIT};
use rekindle_tests::fixtures::tampering;
use rekindle_tests::wait::wait_for;
use shared::id::BackupId;
use shared::layout;
use time::{Duration, OffsetDateTime};

const APPLICATION: &str = "old";

#[tokio::test(flavor = "multi_thread")]
async fn retention_follows_a_committed_backup_and_keeps_recent_and_pinned_ones_and_the_first_of_each_day()
-> Result<()> {
    let (protected, node) = ProtectedGroups::with_filled_group(APPLICATION).await?;
    let genuine = protected.back_up(APPLICATION).await?;
    let now = OffsetDateTime::now_utc();
    let day = |days: i64| now - Duration::days(days);
    let noon = |days: i64| day(days).replace_time(time::macros::time!(12:00));
    // Two backups on each of three old days, two very old ones (one is pinned), and ten recent ones.
    let mut ids = Vec::new();
    for days in [10, 11, 12] {
        ids.extend([noon(days), noon(days) + Duration::hours(1)]);
    }
    ids.extend([day(100), day(101)]);
    ids.extend((1..=10).map(|hours| now - Duration::hours(hours)));
    let ids: Vec<BackupId> = ids.into_iter().map(BackupId::at).collect();
    for id in &ids {
        tampering::copy_as(&protected, &genuine, id)?;
    }
    let pinned = &ids[7];
    let answer = protected.request("pin", APPLICATION, pinned).await?;
    assert_eq!(answer["outcome"], "done", "{answer}");
    let all = protected.backups(APPLICATION)?;

    // After a failed backup, nothing is deleted.
    node.cluster()?.stop().await?;
    protected.standin.tick();
    protected
        .wait_for_failure(APPLICATION, "PostgresUnreachable")
        .await?;
    protected.wait_until_idle().await?;
    assert_eq!(protected.backups(APPLICATION)?, all);
    node.cluster()?.start().await?;

    protected.standin.tick();
    let is_old = |id: &&BackupId| [&ids[1], &ids[3], &ids[5], &ids[6]].contains(id);
    let standin = &protected.standin;
    wait_for("the old backups to be deleted", WAIT_LIMIT, async || {
        let left = protected
            .backups(APPLICATION)
            .map_err(|error| format!("{error:#}"))?;
        let is_new = left.last() > all.last();
        if !is_new || ids.iter().filter(is_old).any(|id| left.contains(id)) {
            return Err(format!("{left:?}"));
        }
        Ok(Some(()))
    })
    .await?;
    protected.wait_until_idle().await?;
    let left = protected.backups(APPLICATION)?;
    for id in &ids {
        let is_deleted = is_old(&id);
        assert_eq!(left.contains(id), !is_deleted, "{id} {left:?}");
        let objects = standin
            .s3()
            .keys(standin.bucket(), &layout::backup(&APPLICATION.parse()?, id))?;
        assert_eq!(objects.is_empty(), is_deleted, "{id} {objects:?}");
    }
    assert!(
        protected
            .errors(APPLICATION)
            .iter()
            .all(|line| !line.has_kind("Retention"))
    );
    Ok(())
}
