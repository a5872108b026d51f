//! The demonstration as a test: the shipped binaries and real Postgres; only AWS is simulated.

use anyhow::Result;
use rekindle_tests::demo::process;
use rekindle_tests::fixtures::registry::Seed;

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_and_a_planned_replacement_keep_everything_that_they_must_keep() -> Result<()> {
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
