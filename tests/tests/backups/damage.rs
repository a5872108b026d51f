//! What happens to objects between their upload and the commit.

use anyhow::{Context as _, Result};
use rekindle_tests::nodes::protected::Protected;
use rekindle_tests::standin::bus::Mishap;
use tokio::try_join;

use super::delivery::succeeded;

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_with_a_damaged_object_is_never_committed() -> Result<()> {
    let protected = Protected::start().await?;
    let applications = ["missing", "truncated", "altered", "index"];
    let nodes = try_join!(
        protected.empty(applications[0]),
        protected.empty(applications[1]),
        protected.empty(applications[2]),
        protected.empty(applications[3])
    )?;
    let (world, s3) = (&protected.world, protected.world.s3());
    world
        .bus()
        .mishap_where(succeeded, Mishap::Hold, applications.len());
    world.tick();
    for node in [&nodes.0, &nodes.1, &nodes.2, &nodes.3] {
        assert_eq!(protected.ended(node, "backup", 0).await?.status, "Success");
    }

    let object = |application: &str, name: &str| {
        let keys = s3.keys(world.bucket(), &format!("backups/{application}/"))?;
        let key = keys.into_iter().find(|key| key.ends_with(name));
        key.with_context(|| format!("{application} has no {name}"))
    };
    s3.remove(world.bucket(), &object("missing", "globals.sql.zst")?)
        .await?;
    let dump = object("truncated", "0.dump.zst")?;
    let bytes = s3.read(world.bucket(), &dump)?;
    s3.replace(world.bucket(), &dump, &bytes[..bytes.len() / 2])?;
    let configuration = object("altered", "config.tar.zst")?;
    let mut bytes = s3.read(world.bucket(), &configuration)?;
    if let Some(byte) = bytes.last_mut() {
        *byte ^= 1;
    }
    s3.replace(world.bucket(), &configuration, &bytes)?;
    s3.flip(world.bucket(), &object("index", "index.json")?, 10)?;

    world.bus().release();
    for application in applications {
        let message = protected.failure(application, "Contract").await?;
        assert!(message.contains("is not committed"), "{message}");
    }
    protected.quiet().await?;
    world.sweep();
    protected.quiet().await?;
    for application in applications {
        assert!(protected.backups(application)?.is_empty(), "{application}");
    }

    // The next one is as good as any.
    world
        .bus()
        .tick(time::OffsetDateTime::now_utc() + time::Duration::seconds(2));
    for application in applications {
        protected.committed(application, 0).await?;
    }
    Ok(())
}
