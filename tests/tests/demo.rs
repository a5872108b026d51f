//! The demonstration as a test: the shipped binaries and real Postgres; only AWS is simulated.

use anyhow::Result;
use rekindle_tests::demo::process;
use rekindle_tests::fixtures::registry::Seed;

#[tokio::test(flavor = "multi_thread")]
async fn an_unplanned_loss_keeps_the_last_backup_and_a_planned_replacement_keeps_everything()
-> Result<()> {
    let seed = Seed {
        rows: 5_000,
        seed: 3,
    };
    let result = process::play(seed, &|_| {}).await?;
    assert!(result.is_faithful(), "{result:?}");
    assert!(result.unplanned.rows > 5_000, "{result:?}");
    assert!(result.acknowledged > 0, "{result:?}");
    Ok(())
}
