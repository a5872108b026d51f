//! Launch restores and in-place restores, end to end, with the shipped functions and the shipped agent.

mod in_place;
mod launch;
mod texts;

use std::sync::Arc;

use anyhow::Result;
use rekindle_tests::fixtures::protected_groups::ProtectedGroups;
use rekindle_tests::fixtures::standalone;
use rekindle_tests::fixtures::standalone::DataSnapshot;
use rekindle_tests::nodes::machine::Node;
use shared::manifest::Manifest;

/// Starts a group and backs it up once; returns its node, the manifest, and the data of the node at that time.
async fn backed_up(
    application: &str,
) -> Result<(ProtectedGroups, Arc<Node>, Manifest, DataSnapshot)> {
    let (protected, node) = ProtectedGroups::with_filled_group(application).await?;
    let manifest = protected.back_up(application).await?;
    let data = standalone::snapshot(&node).await?;
    Ok((protected, node, manifest, data))
}
