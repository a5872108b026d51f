//! The attributes of a directory that stays in place while a restore replaces its entries, such as a mount point.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, IFlags, Timespec, Timestamps, UTIME_OMIT};

use crate::files::{extended, flags};

/// The owner, mode, time of the last change, extended attributes and flags of a directory.
#[derive(Debug)]
pub(crate) struct DirectoryAttributes {
    metadata: Metadata,
    extended: Vec<(OsString, Vec<u8>)>,
    flags: IFlags,
}

impl DirectoryAttributes {
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        Ok(Self {
            metadata: fs::symlink_metadata(path)?,
            extended: extended::all(path)?,
            flags: flags::of(path)?,
        })
    }

    /// Gives a directory these attributes.
    pub(crate) fn set(&self, path: &Path) -> io::Result<()> {
        flags::set(path, IFlags::empty())?;
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            let (uid, gid) = (self.metadata.uid(), self.metadata.gid());
            std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
        }
        // An access control list changes the mode, and the mode changes an access control list.
        extended::remove_inherited(path)?;
        fs::set_permissions(path, self.metadata.permissions())?;
        extended::replace(path, &self.extended, is_root)?;
        set_time(path, modified(&self.metadata))?;
        flags::set(path, self.flags)
    }
}

fn modified(metadata: &Metadata) -> Timespec {
    Timespec {
        tv_sec: metadata.mtime(),
        tv_nsec: metadata.mtime_nsec(),
    }
}

/// Runs `work`, which creates or removes an entry of a directory, and sets the directory's time of the last change back.
pub(crate) fn keeping_time<T>(
    directory: &Path,
    work: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let before = modified(&fs::symlink_metadata(directory)?);
    let done = work()?;
    flags::while_cleared(&[directory], || set_time(directory, before))?;
    Ok(done)
}

/// Sets the time of the last change, not that of the last access. Does not follow a symbolic link.
pub(crate) fn set_time(path: &Path, modified: Timespec) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: modified,
    };
    Ok(rustix::fs::utimensat(
        CWD,
        path,
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}
