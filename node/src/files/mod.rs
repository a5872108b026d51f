//! Files of the node: where they are, how private ones are created, trees of them as tar, and the directories in which
//! a restore stages them.

pub(crate) mod directory;
pub(crate) mod extended;
pub(crate) mod flags;
pub(crate) mod mounts;
pub(crate) mod staging;
pub mod tree;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The most characters of a path in a message.
const MOST_SHOWN: usize = 240;

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

/// Returns a path for a message. A long path is shortened in its middle, so that the report has room for the reason.
pub(crate) fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    let length = text.chars().count();
    if length <= MOST_SHOWN {
        return text;
    }
    let half = MOST_SHOWN / 2;
    let start: String = text.chars().take(half).collect();
    let end: String = text.chars().skip(length - half).collect();
    format!("{start}…{end}")
}

/// Creates a directory that only its owner can open. Fails if the path exists.
pub(crate) fn create_private_directory(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    // The parent can have a default access control list. Without it here, no file in this directory inherits it.
    extended::remove_inherited(path)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_is_shown_with_its_start_and_its_end() {
        assert_eq!(shown(Path::new("/etc/app")), "/etc/app");
        let long = format!("/etc/{}/{}/key.pem", "ä".repeat(250), "b".repeat(250));
        let text = shown(Path::new(&long));
        assert_eq!(text.chars().count(), MOST_SHOWN + 1);
        assert!(
            text.starts_with("/etc/ää") && text.ends_with("bb/key.pem"),
            "{text}"
        );
    }
}
