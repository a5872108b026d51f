//! The attributes of files for which the headers of a tar have no field, as PAX records.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{Result, unless_gone, unreadable};
use crate::files::{extended, flags};

/// The time of the last change, the extended attributes in the form that GNU tar and bsdtar use, and the flags in that of
/// bsdtar.
pub(super) fn attributes(path: &Path, metadata: &Metadata) -> Result<Vec<(String, Vec<u8>)>> {
    let mut records = Vec::new();
    // Linux has no user attributes, access control lists or flags on symbolic links.
    if !metadata.is_symlink() {
        for (name, value) in unless_gone(path, extended::all(path))?.unwrap_or_default() {
            records.push((attribute_key(path, &name)?, value));
        }
        let flags = flags::of(path).map_err(|source| unreadable(path, source))?;
        if !flags.is_empty() {
            records.push(("SCHILY.fflags".to_owned(), flags::to_text(flags).into()));
        }
    }
    records.push(("mtime".to_owned(), time(metadata)));
    Ok(records)
}

fn attribute_key(path: &Path, name: &OsStr) -> Result<String> {
    let Some(name) = name.to_str().filter(|name| !name.contains('=')) else {
        let problem = format!(
            "the name of its extended attribute {} cannot be archived",
            name.display()
        );
        return Err(unreadable(path, io::Error::other(problem)));
    };
    Ok(format!("SCHILY.xattr.{name}"))
}

/// Returns the time of the last change in PAX form: seconds with a fraction.
fn time(metadata: &Metadata) -> Vec<u8> {
    let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
    if seconds >= 0 {
        return format!("{seconds}.{nanoseconds:09}").into_bytes();
    }
    // The kernel's nanoseconds always count upwards; the text is one decimal number.
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let (whole, fraction) = (
        total.unsigned_abs() / 1_000_000_000,
        total.unsigned_abs() % 1_000_000_000,
    );
    format!("-{whole}.{fraction:09}").into_bytes()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_time_before_the_epoch_is_one_decimal_number() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("old");
        fs::write(&path, "").unwrap();
        let touched = Command::new("touch")
            .args(["-d", "@-1.25"])
            .arg(&path)
            .status();
        assert!(touched.unwrap().success());
        assert_eq!(time(&fs::metadata(&path).unwrap()), b"-1.250000000");
    }
}
