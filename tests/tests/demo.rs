//! The story of the demonstration as a test: the shipped binaries, real Postgres, and only AWS stood in for.

use anyhow::Result;
use rekindle_tests::demo as story;
use rekindle_tests::fixtures::registry::Seed;

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_story_loses_nothing_that_it_must_keep() -> Result<()> {
    let seed = Seed {
        rows: 5_000,
        seed: 3,
    };
    let outcome = story::play(seed, &|_| {}).await?;
    assert!(outcome.is_faithful(), "{outcome:?}");
    assert!(outcome.unplanned.rows > 5_000, "{outcome:?}");
    assert!(outcome.acknowledged > 0, "{outcome:?}");
    Ok(())
}
