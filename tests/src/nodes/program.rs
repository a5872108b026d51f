//! The executable files of a node, and the processes of this machine.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Writes an executable file.
pub fn write_program(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    open_to_all(path)
}

/// Allows every user to enter a directory or to run a program: Postgres runs as a user of its own.
pub(crate) fn open_to_all(path: &Path) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("set the permissions of {}", path.display()))
}

/// Returns the ids of this machine's processes. A process may have ended when its id is used.
pub(crate) fn process_ids() -> Result<Vec<i32>> {
    let entries = std::fs::read_dir("/proc").context("list processes")?;
    let ids = entries.filter_map(|entry| match entry {
        Ok(entry) => entry.file_name().to_str()?.parse().ok().map(Ok),
        Err(error) => Some(Err(error)),
    });
    ids.collect::<Result<_, _>>().context("list processes")
}
