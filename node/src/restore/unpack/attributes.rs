//! What makes a file what it is, apart from its name and content: read from an archive, and set.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};
use tar::Entry;

use super::{Record, Result, UnpackError};

const ATTRIBUTE: &str = "SCHILY.xattr.";

/// What makes a file what it is, apart from its name and content.
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) modified: Timespec,
    pub(super) extended: Vec<(OsString, Vec<u8>)>,
}

impl Attributes {
    /// Reads what an entry and the records before it say.
    pub(super) fn of(entry: &Entry<'_, impl Read>, records: &[Record]) -> Result<Self> {
        let header = entry.header();
        let extended = records.iter().filter_map(|(key, value)| {
            let name = key.strip_prefix(ATTRIBUTE)?;
            Some((OsString::from(name), value.clone()))
        });
        let modified = records
            .iter()
            .find(|(key, _)| key == "mtime")
            .and_then(|(_, value)| timestamp(std::str::from_utf8(value).ok()?));
        let modified = match modified {
            Some(modified) => modified,
            None => Timespec {
                tv_sec: header
                    .mtime()
                    .map_err(UnpackError::Read)?
                    .try_into()
                    .unwrap_or(0),
                tv_nsec: 0,
            },
        };
        Ok(Self {
            mode: header.mode().map_err(UnpackError::Read)? & 0o7777,
            uid: header.uid().map_err(UnpackError::Read)?,
            gid: header.gid().map_err(UnpackError::Read)?,
            modified,
            extended: extended.collect(),
        })
    }

    /// Sets everything on a file or directory that nobody but the agent could have put there.
    pub(super) fn apply(&self, path: &Path, is_root: bool) -> io::Result<()> {
        if is_root {
            std::os::unix::fs::lchown(path, Some(id(self.uid)?), Some(id(self.gid)?))?;
        }
        // Changing the owner clears the set-user-id bit, so the mode comes later; an access control list brings
        // its own.
        fs::set_permissions(path, fs::Permissions::from_mode(self.mode))?;
        for (name, value) in &self.extended {
            match xattr::set(path, name, value) {
                Ok(()) => {}
                Err(error) if dispensable(name, &error, is_root) => {
                    tracing::warn!(path = %path.display(), ?name, %error, "attribute left out");
                }
                Err(error) => {
                    let problem = format!("set the extended attribute {}: {error}", name.display());
                    return Err(io::Error::new(error.kind(), problem));
                }
            }
        }
        self.touch(path)
    }

    /// Sets what a symbolic link has.
    pub(super) fn apply_to_link(&self, path: &Path, is_root: bool) -> io::Result<()> {
        if is_root {
            std::os::unix::fs::lchown(path, Some(id(self.uid)?), Some(id(self.gid)?))?;
        }
        self.touch(path)
    }

    fn touch(&self, path: &Path) -> io::Result<()> {
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: self.modified,
        };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }
}

/// Labels of the old node's kernel mean nothing to a kernel that has no such module, and only root sets them.
fn dispensable(name: &OsStr, error: &io::Error, is_root: bool) -> bool {
    let kernels =
        name.as_bytes().starts_with(b"security.") || name.as_bytes().starts_with(b"trusted.");
    kernels && (error.kind() == io::ErrorKind::Unsupported || !is_root)
}

fn id(number: u64) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| io::Error::other(format!("{number} is no user or group id")))
}

/// Reads seconds with a fraction, which may be negative.
pub(super) fn timestamp(text: &str) -> Option<Timespec> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    // As 64 bits first: whatever an archive says, nothing below overflows.
    let (seconds, nanoseconds) = (seconds.parse::<u64>().ok()?, digits.parse::<u32>().ok()?);
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let total = if negative { -total } else { total };
    Some(Timespec {
        tv_sec: i64::try_from(total.div_euclid(1_000_000_000)).ok()?,
        tv_nsec: i64::try_from(total.rem_euclid(1_000_000_000)).ok()?,
    })
}
