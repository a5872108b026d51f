//! The attributes of files: read from an archive and set on the files.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{IFlags, Timespec};
use tar::Entry;

use crate::files::{directory, extended, flags};
use crate::restore::unpack::error::{Result, UnpackError};
use crate::restore::unpack::headers::{self, Record};

/// The prefix of the keys of extended attributes.
const ATTRIBUTE: &str = "SCHILY.xattr.";

/// The attributes of a file.
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) modified: Timespec,
    pub(super) extended: Vec<(OsString, Vec<u8>)>,
    /// The caller sets them last: a file with flags cannot be changed any more.
    pub(super) flags: IFlags,
}

impl Attributes {
    /// Returns the attributes from an entry and the records before it.
    pub(super) fn of(entry: &Entry<'_, impl Read>, records: &[Record]) -> Result<Self> {
        let header = entry.header();
        let extended = records.iter().filter_map(|(key, value)| {
            let name = key.strip_prefix(ATTRIBUTE)?;
            Some((OsString::from(name), value.clone()))
        });
        let modified = headers::value(records, "mtime")
            .and_then(|value| timestamp(std::str::from_utf8(value).ok()?));
        let flags = headers::value(records, "SCHILY.fflags");
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
            flags: flags.map_or(IFlags::empty(), flags::from_text),
        })
    }

    /// Sets the attributes of a file or directory. It must be in a staging directory, where only the agent can replace
    /// it.
    pub(super) fn apply(&self, path: &Path, is_root: bool) -> io::Result<()> {
        if is_root {
            std::os::unix::fs::lchown(path, Some(id(self.uid)?), Some(id(self.gid)?))?;
        }
        // The mode comes after the owner, because changing the owner clears the set-user-id bit, and before access
        // control lists, which change the mode.
        fs::set_permissions(path, fs::Permissions::from_mode(self.mode))?;
        for (name, value) in &self.extended {
            extended::set(path, name, value, is_root)?;
        }
        directory::set_time(path, self.modified)
    }

    /// Sets the attributes of a symbolic link.
    pub(super) fn apply_to_link(&self, path: &Path, is_root: bool) -> io::Result<()> {
        if is_root {
            std::os::unix::fs::lchown(path, Some(id(self.uid)?), Some(id(self.gid)?))?;
        }
        directory::set_time(path, self.modified)
    }
}

fn id(number: u64) -> io::Result<u32> {
    u32::try_from(number)
        .map_err(|_| io::Error::other(format!("{number} is not a user or group id")))
}

/// Parses seconds with a fraction, which can be negative.
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
    // Parse into 64 bits first, so that no text from an archive overflows below.
    let (seconds, nanoseconds) = (seconds.parse::<u64>().ok()?, digits.parse::<u32>().ok()?);
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let total = if negative { -total } else { total };
    Some(Timespec {
        tv_sec: i64::try_from(total.div_euclid(1_000_000_000)).ok()?,
        tv_nsec: i64::try_from(total.rem_euclid(1_000_000_000)).ok()?,
    })
}
