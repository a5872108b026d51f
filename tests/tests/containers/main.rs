//! An application in containers: the shipped agent with real containers of a real Docker Engine.
//!
//! Each test needs a Docker Engine. If there is none, the test prints the reason and passes; in CI, that is a failure.

#![expect(clippy::print_stderr, reason = "a skipped test prints the reason")]

mod images;
mod leftovers;

use std::sync::Arc;

use anyhow::Result;
use rekindle_tests::demo::containers;
use rekindle_tests::fixtures::containers::Application;
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use rekindle_tests::fixtures::registry::Seed;
use rekindle_tests::fixtures::standalone::StandaloneNode;
use rekindle_tests::nodes::engine;
use rekindle_tests::nodes::machine::Node;

/// Returns whether the test must be skipped because there is no Docker Engine; prints the reason.
async fn skipped() -> Result<bool> {
    let missing = engine::missing().await?;
    if let Some(reason) = &missing {
        eprintln!("skipped: {reason}");
    }
    Ok(missing.is_some())
}

/// Boots a node of the application outside every group. Its settings do not start a registry, because the group's own
/// registry uses the same port.
async fn standalone_node(
    protected: &ProtectedGroups,
    application: &Application,
) -> Result<StandaloneNode> {
    let machine_settings = protected.standin.machine_settings(&application.name)?;
    let id = format!("i-{}", &uuid::Uuid::new_v4().simple().to_string()[..17]);
    let node = Node::boot(&id, "none", &machine_settings, Arc::new(|| None)).await?;
    application
        .prepare(&node, protected.standin.bucket())
        .await?;
    let settings = node.root().join("etc/rekindle/node.toml");
    let text = std::fs::read_to_string(&settings)?;
    let kept = text
        .lines()
        .filter(|line| !line.starts_with("start =") && !line.starts_with("health ="));
    std::fs::write(&settings, kept.collect::<Vec<_>>().join("\n"))?;
    node.finish_boot()?;
    Ok(StandaloneNode { node })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_registry_serves_all_pushed_images_before_it_is_in_service() -> Result<()> {
    if skipped().await? {
        return Ok(());
    }
    let seed = Seed {
        rows: 2_000,
        seed: 5,
    };
    let result = containers::play(seed, 1, &|_| {}).await?;
    assert!(result.is_faithful(), "{result:?}");
    assert_eq!((result.images, result.pulled), (2, 4));
    assert_eq!(result.saved_images.0, 1, "{result:?}");
    Ok(())
}
