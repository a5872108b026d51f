//! The rows and files of a node, and their comparison with those of its replacement.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};

use crate::fixtures::registry;
use crate::fixtures::registry::{Files, MAIN_DATABASE, NOTARY_DATABASE, Rows};
use crate::nodes::machine::Node;

/// The rows and files of a node.
pub(super) struct State {
    pub(super) main: Rows,
    pub(super) notary: Rows,
    pub(super) files: Files,
}

impl State {
    /// Reads both databases and the configuration.
    pub(super) async fn read(node: &Node) -> Result<Self> {
        let cluster = node.cluster()?;
        Ok(Self {
            main: registry::rows(&cluster.connect(MAIN_DATABASE).await?).await?,
            notary: registry::rows(&cluster.connect(NOTARY_DATABASE).await?).await?,
            files: registry::files(&node.root())?,
        })
    }

    /// Returns the number of rows in both databases.
    pub(super) fn rows(&self) -> usize {
        self.main
            .values()
            .chain(self.notary.values())
            .map(Vec::len)
            .sum()
    }

    /// Returns the number of rows that differ between `self` and `after`, by table, in both databases.
    pub(super) fn different_rows(&self, after: &Self) -> BTreeMap<String, usize> {
        let mut different = registry::different_rows(&self.main, &after.main);
        different.extend(registry::different_rows(&self.notary, &after.notary));
        different
    }
}

/// Returns the number of acknowledged events that the node does not have.
pub(super) async fn lost_events(node: &Node, acknowledged: &[i64]) -> Result<usize> {
    let client = node.cluster()?.connect(MAIN_DATABASE).await?;
    let rows = client
        .query("SELECT id FROM registry.push_event", &[])
        .await
        .context("read the events")?;
    let present: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    Ok(acknowledged
        .iter()
        .filter(|id| !present.contains(id))
        .count())
}

/// Returns the number of rows, by table, that existed before the load and are gone or changed; acknowledged events that
/// were lost count too. Rows that the application has added since then do not count.
pub(super) fn gone_rows(before: &State, after: &State, lost: usize) -> BTreeMap<String, usize> {
    const EVENTS: &str = "registry.push_event";
    let mut different = before.different_rows(after);
    different.remove(EVENTS);
    let (none, mut after_events) = (Vec::new(), BTreeMap::new());
    for hash in after.main.get(EVENTS).unwrap_or(&none) {
        *after_events.entry(hash).or_insert(0usize) += 1;
    }
    let gone = before
        .main
        .get(EVENTS)
        .unwrap_or(&none)
        .iter()
        .filter(|hash| {
            let left = after_events.get_mut(hash).filter(|left| **left > 0);
            left.map(|left| *left -= 1).is_none()
        });
    let gone = gone.count() + lost;
    if gone > 0 {
        different.insert(EVENTS.to_owned(), gone);
    }
    different
}
