//! Restores, end to end, with the shipped functions and the shipped agent: of a launched instance and in place.

mod in_place;
mod launch;

use std::sync::Arc;

use anyhow::Result;
use rekindle_tests::nodes::machine::Node;
use rekindle_tests::nodes::protected::Protected;
use rekindle_tests::nodes::spare;
use rekindle_tests::nodes::spare::Holding;
use shared::manifest::Manifest;

/// Starts a group and backs it up once; returns its node, the manifest and what the backup holds.
async fn backed_up(application: &str) -> Result<(Protected, Arc<Node>, Manifest, Holding)> {
    let (protected, node) = Protected::one(application).await?;
    let manifest = protected.back_up(application).await?;
    let holding = spare::holding(&node).await?;
    Ok((protected, node, manifest, holding))
}
