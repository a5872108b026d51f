//! The standard output of the programs.

use std::io::Write as _;

use anyhow::{Context as _, Result};

/// Writes a text to stdout at once. Returns an error if stdout is closed.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .context("write to stdout")
}
