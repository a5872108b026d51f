//! Files of the node: where they are, how private ones are created, trees of them as tar, and the directories in which
//! a restore stages them.

pub(crate) mod mounts;
pub(crate) mod staging;
pub mod tree;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Returns where an absolute path is on the node with this root.
pub(crate) fn on_node(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Returns what was found, or `None` if the file does not exist.
pub(crate) fn unless_missing<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates a directory that only its owner can open. Fails if the path exists.
pub(crate) fn create_private_directory(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    // Whatever the umask is.
    fs::set_permissions(path, Permissions::from_mode(0o700))
}

/// Creates a file that only its owner can open. Fails if the path exists.
pub(crate) fn create_private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}
