//! The documents match the programs: their tables are compared with the code, and their commands are run.

mod by_hand;
mod pages;
mod reference;
mod tests_readme;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rekindle_tests::repository::{project, rust_files};

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
    let mut found = rust_files(directory)?;
    found.retain(|path| {
        let inner = path.strip_prefix(directory).unwrap_or(path);
        let mut folders = inner.components();
        !folders.any(|folder| folder.as_os_str() == "tests")
            && !path.ends_with("tests.rs")
            && !path.ends_with("testing.rs")
    });
    Ok(found)
}
