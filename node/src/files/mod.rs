//! Files of the node: where they are, trees of them as tar, and the directories in which a restore stages them.

pub(crate) mod mounts;
pub(crate) mod staging;
pub mod tree;

use std::path::{Path, PathBuf};

/// Returns where an absolute path is on the node with this root.
pub(crate) fn on_node(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
