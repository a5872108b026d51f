//! Extended attributes, which include access control lists.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::files::shown;

/// The access control lists that a new file inherits from the directory around it.
const INHERITED: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];

/// Returns the extended attributes, sorted by their names. There are none if the file system does not support them.
pub(crate) fn all(path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let mut attributes = Vec::new();
    for name in names(path)? {
        if let Some(value) = unless_unsupported(xattr::get(path, &name))?.flatten() {
            attributes.push((name, value));
        }
    }
    Ok(attributes)
}

/// Sets an extended attribute. A label of a security module is skipped if the kernel does not support it: it means
/// nothing to a kernel without that module. Only root can set one.
pub(crate) fn set(path: &Path, name: &OsStr, value: &[u8], is_root: bool) -> io::Result<()> {
    match xattr::set(path, name, value) {
        Err(error)
            if is_label(name) && (error.kind() == io::ErrorKind::Unsupported || !is_root) =>
        {
            tracing::warn!(path = %shown(path), ?name, %error, "skipped an extended attribute");
            Ok(())
        }
        Err(error) => {
            let problem = format!(
                "cannot set the extended attribute {}: {error}",
                name.display()
            );
            Err(io::Error::new(error.kind(), problem))
        }
        Ok(()) => Ok(()),
    }
}

/// Sets the extended attributes of a path to exactly these. Labels that are not among them stay.
pub(crate) fn replace(
    path: &Path,
    wanted: &[(OsString, Vec<u8>)],
    is_root: bool,
) -> io::Result<()> {
    let present = all(path)?;
    for (name, _) in &present {
        if !is_label(name) && wanted.iter().all(|(other, _)| other != name) {
            xattr::remove(path, name)?;
        }
    }
    for attribute in wanted {
        if !present.contains(attribute) {
            set(path, &attribute.0, &attribute.1, is_root)?;
        }
    }
    Ok(())
}

/// Removes the access control lists that a new file or directory inherited.
pub(crate) fn remove_inherited(path: &Path) -> io::Result<()> {
    for name in names(path)? {
        if INHERITED.iter().any(|inherited| *inherited == name) {
            xattr::remove(path, &name)?;
        }
    }
    Ok(())
}

fn names(path: &Path) -> io::Result<Vec<OsString>> {
    let names = unless_unsupported(xattr::list(path))?;
    let mut names: Vec<_> = names.into_iter().flatten().collect();
    names.sort();
    Ok(names)
}

fn is_label(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"security.") || name.as_bytes().starts_with(b"trusted.")
}

fn unless_unsupported<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(None),
        found => found.map(Some),
    }
}
