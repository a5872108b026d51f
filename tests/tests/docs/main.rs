//! The documents match the programs: their tables are compared with the code, and their commands are run.

mod by_hand;
mod pages;
mod reference;
mod tests_readme;

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

/// Returns the words in backquotes of a text.
fn quoted(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// Returns the Rust files below a directory, without unit tests and test helpers.
fn sources(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.ends_with("tests") {
            continue;
        }
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.ends_with("tests.rs")
            && !path.ends_with("testing.rs")
        {
            found.push(path);
        }
    }
    Ok(found)
}
