//! The documents match the programs: their tables are compared with the code, and their commands are run.

mod by_hand;
mod reference;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Returns the root of the repository.
fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Reads a file of the repository.
fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(project().join(path)).with_context(|| format!("read {path}"))
}
