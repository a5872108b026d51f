//! The flags of `chattr` that forbid changes: immutable (`+i`) and append-only (`+a`). Not even root can rename or remove
//! a file with one of them, nor an entry of a directory with one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, IFlags, OFlags, StatxAttributes, StatxFlags, ioctl_getflags, ioctl_setflags,
    statx,
};
use rustix::io::Errno;

use crate::files::shown;

/// The flags that this module reads and sets.
const FLAGS: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

/// The names of the flags, as in the PAX records of bsdtar.
const NAMES: [(&str, IFlags); 2] = [("append", IFlags::APPEND), ("immutable", IFlags::IMMUTABLE)];

/// Returns the flags of a file or directory. They are empty if the path does not exist, or its file system has no flags.
pub(crate) fn of(path: &Path) -> io::Result<IFlags> {
    let read = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    let attributes = match read {
        Ok(read) => read.stx_attributes,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NOSYS) => return Ok(IFlags::empty()),
        Err(errno) => return Err(errno.into()),
    };
    let mut flags = IFlags::empty();
    flags.set(
        IFlags::IMMUTABLE,
        attributes.contains(StatxAttributes::IMMUTABLE),
    );
    flags.set(IFlags::APPEND, attributes.contains(StatxAttributes::APPEND));
    Ok(flags)
}

/// Returns the names of the flags, separated by commas.
pub(crate) fn to_text(flags: IFlags) -> String {
    let names = NAMES.iter().filter(|(_, flag)| flags.contains(*flag));
    names.map(|(name, _)| *name).collect::<Vec<_>>().join(",")
}

/// Returns the flags with these names. Other names are ignored: bsdtar archives more flags.
pub(crate) fn from_text(text: &[u8]) -> IFlags {
    let mut flags = IFlags::empty();
    for name in text.split(|byte| *byte == b',') {
        let known = NAMES.iter().find(|(known, _)| known.as_bytes() == name);
        flags |= known.map_or(IFlags::empty(), |(_, flag)| *flag);
    }
    flags
}

/// Sets the flags of a file or directory to exactly these.
pub(crate) fn set(path: &Path, wanted: IFlags) -> io::Result<()> {
    if of(path)? == wanted {
        return Ok(());
    }
    set_opened(&open(path)?, wanted)
}

/// Clears the flags of these paths, runs `work`, and sets the flags again, also if `work` failed. The flags stay with
/// the files if `work` renames them. Paths that do not exist are ignored.
pub(crate) fn while_cleared<T>(
    paths: &[&Path],
    work: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let mut cleared = Vec::new();
    let done = paths
        .iter()
        .try_for_each(|path| {
            let flags = of(path)?;
            if !flags.is_empty() {
                cleared.push((path, clear(path)?, flags));
            }
            Ok(())
        })
        .and_then(|()| work());
    for (path, file, flags) in cleared {
        // A file that `work` renamed or removed is still open here. `work` cannot be undone, so this is no failure.
        if let Err(error) = set_opened(&file, flags) {
            let flags = to_text(flags);
            tracing::warn!(path = %shown(path), flags, %error, "cannot set the flags of a file again");
        }
    }
    done
}

/// Clears the flags of a path and of everything below it.
pub(crate) fn clear_all(path: &Path) -> io::Result<()> {
    let mut waiting: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        if !of(&path)?.is_empty() {
            clear(&path)?;
        }
        if fs::symlink_metadata(&path)?.is_dir() {
            for entry in fs::read_dir(&path)? {
                waiting.push(entry?.path());
            }
        }
    }
    Ok(())
}

/// Clears the flags of a path that has some. Returns the open file.
fn clear(path: &Path) -> io::Result<File> {
    let cleared = open(path).and_then(|file| {
        set_opened(&file, IFlags::empty())?;
        Ok(file)
    });
    cleared.map_err(|error| {
        let problem = format!(
            "cannot clear the flags of {}: {error}; run chattr -i -a on it",
            shown(path)
        );
        io::Error::new(error.kind(), problem)
    })
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

fn set_opened(file: &File, wanted: IFlags) -> io::Result<()> {
    let others = ioctl_getflags(file)?.difference(FLAGS);
    Ok(ioctl_setflags(file, others | wanted)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_flags_are_read_back_and_unknown_ones_are_ignored() {
        for flags in [IFlags::empty(), IFlags::APPEND, IFlags::IMMUTABLE, FLAGS] {
            assert_eq!(from_text(to_text(flags).as_bytes()), flags);
        }
        assert_eq!(from_text(b"nodump,immutable,"), IFlags::IMMUTABLE);
    }
}
