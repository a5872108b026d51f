//! Staging directories: a restore unpacks the configuration into them before it replaces the live files.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use shared::exit_code::ExitCode;

use crate::agent::failure::{OrFail as _, Result};
use crate::files::mounts::{mount_points, resolved, within};
use crate::files::{flags, unless_missing};

/// The prefix of the names of staging directories.
pub(crate) const PREFIX: &str = ".rekindle-restore-";

/// Removes the staging directories of earlier restores: beside these paths, in them, and in what is mounted within them.
pub(crate) fn remove_leftovers(paths: impl Iterator<Item = PathBuf>) -> Result<()> {
    let mounts = mount_points().or_fail(
        ExitCode::ConfigurationRestore,
        || "cannot read the mount points",
    )?;
    for path in paths {
        let beside = path.parent().unwrap_or(Path::new("/")).to_owned();
        let mut directories = vec![beside];
        directories.extend(within(&path, &mounts));
        directories.push(path);
        for directory in directories.iter().filter(|one| one.is_dir()) {
            remove_from(directory)?;
        }
    }
    Ok(())
}

/// Removes all staging directories in a directory.
pub(crate) fn remove_from(directory: &Path) -> Result<()> {
    let remove_all = || {
        for name in names_in(directory)? {
            if name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
                let path = directory.join(&name);
                tracing::info!(path = %path.display(), "removing the staging directory of an earlier restore");
                remove(&path)?;
            }
        }
        Ok::<(), io::Error>(())
    };
    remove_all().or_fail(ExitCode::ConfigurationRestore, || {
        format!(
            "cannot remove the staging directories in {}",
            directory.display()
        )
    })
}

/// Removes one staging directory with its content. Fails if a file system is mounted in it: that would be emptied too.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let resolved = resolved(path);
    if let Some(mount) = mount_points()?
        .iter()
        .find(|mount| mount.starts_with(&resolved))
    {
        return Err(io::Error::other(format!(
            "a file system is mounted at {}; unmount it",
            mount.display()
        )));
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    let removed = flags::while_cleared(&[parent], || match fs::remove_dir_all(path) {
        // One of the files is immutable or append-only.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            flags::clear_all(path)?;
            fs::remove_dir_all(path)
        }
        removed => removed,
    });
    unless_missing(removed).map(drop)
}

/// Returns the names in a directory.
pub(crate) fn names_in(directory: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name()))
        .collect()
}
