//! Objects that are damaged between their upload and the commit.

use anyhow::{Context as _, Result};
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use rekindle_tests::standin::bus::DeliveryFault;
use rekindle_tests::standin::ssm::reports_success;
use tokio::try_join;

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_with_a_damaged_object_is_never_committed() -> Result<()> {
    let protected = ProtectedGroups::start().await?;
    let applications = ["missing", "truncated", "altered", "index"];
    let nodes = try_join!(
        protected.create_empty(applications[0]),
        protected.create_empty(applications[1]),
        protected.create_empty(applications[2]),
        protected.create_empty(applications[3])
    )?;
    let (standin, s3) = (&protected.standin, protected.standin.s3());
    standin
        .bus()
        .inject_where(reports_success, DeliveryFault::Hold, applications.len());
    standin.tick();
    for node in [&nodes.0, &nodes.1, &nodes.2, &nodes.3] {
        assert_eq!(
            protected.wait_until_ended(node, "backup", 0).await?.status,
            "Success"
        );
    }

    let object = |application: &str, name: &str| {
        let keys = s3.keys(standin.bucket(), &format!("backups/{application}/"))?;
        let key = keys.into_iter().find(|key| key.ends_with(name));
        key.with_context(|| format!("{application} has no {name}"))
    };
    let missing = object("missing", "globals.sql.zst")?;
    s3.remove(standin.bucket(), &missing).await?;
    let truncated = object("truncated", "0.dump.zst")?;
    let bytes = s3.read(standin.bucket(), &truncated)?;
    s3.replace(standin.bucket(), &truncated, &bytes[..bytes.len() / 2])?;
    let altered = object("altered", "config.tar.zst")?;
    let mut bytes = s3.read(standin.bucket(), &altered)?;
    if let Some(byte) = bytes.last_mut() {
        *byte ^= 1;
    }
    s3.replace(standin.bucket(), &altered, &bytes)?;
    let index = object("index", "index.json")?;
    s3.flip(standin.bucket(), &index, 10)?;

    standin.bus().release();
    for (application, damaged) in applications
        .iter()
        .zip([missing, truncated, altered, index])
    {
        let line = protected.wait_for_failure(application, "Contract").await?;
        assert_eq!(line.message, "the backup failed", "{line}");
        assert!(line.contains(&damaged), "{damaged}: {line}");
    }
    protected.wait_until_idle().await?;
    standin.sweep();
    protected.wait_until_idle().await?;
    for application in applications {
        assert!(protected.backups(application)?.is_empty(), "{application}");
    }

    // The next backup is not affected.
    standin
        .bus()
        .tick(time::OffsetDateTime::now_utc() + time::Duration::seconds(2));
    for application in applications {
        protected.wait_for_backup(application, 0).await?;
    }
    Ok(())
}
