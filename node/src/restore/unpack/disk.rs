//! Bringing to the disk what was unpacked, beginning while more is being unpacked.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

use super::{Result, UnpackError};

/// How many bytes are written before the disk is asked to take them: it works while the next ones are decoded.
const FLUSH_EVERY: u64 = 64 * 1024 * 1024;

/// The first kernel that tells by `syncfs` of what could not be written.
const TELLING_KERNEL: (u32, u32) = (5, 8);

/// The file systems that are unpacked to, each by a directory on it.
pub(super) struct Disks(Vec<(PathBuf, File)>);

impl Disks {
    /// Opens a directory on each. From then on, each tells of everything that it cannot write.
    pub(super) fn open(targets: &[PathBuf]) -> Result<Self> {
        let (mut known, mut disks) = (BTreeSet::new(), Vec::new());
        for target in targets {
            let beside = target.parent().unwrap_or(Path::new("/"));
            let opened = File::open(beside).and_then(|directory| {
                let device = directory.metadata()?.dev();
                Ok((device, directory))
            });
            let (device, directory) = opened.map_err(|source| failed(beside, source))?;
            if known.insert(device) {
                disks.push((beside.to_owned(), directory));
            }
        }
        Ok(Self(disks))
    }

    /// Waits until everything that was written is on the disk.
    pub(super) fn flush(&self) -> Result<()> {
        self.0.iter().try_for_each(|(path, directory)| {
            let flushed = rustix::fs::syncfs(directory);
            flushed.map_err(|errno| failed(path, errno.into()))
        })
    }

    /// Does something that writes, and flushes on the side what has been written so far.
    pub(super) fn while_flushing<T>(&self, work: impl FnOnce(&Meter) -> Result<T>) -> Result<T> {
        let (ask, asked) = sync_channel(1);
        std::thread::scope(|scope| {
            let flushing = scope.spawn(move || asked.iter().try_for_each(|()| self.flush()));
            let meter = Meter {
                ask,
                unflushed: Cell::new(0),
            };
            let done = work(&meter);
            drop(meter);
            let flushed = flushing.join().unwrap_or_else(|_| {
                let defect = io::Error::other("the thread that flushes ended by a defect");
                Err(failed(Path::new("/"), defect))
            });
            let done = done?;
            flushed.map(|()| done)
        })
    }
}

/// Counts what is written, and has it flushed from time to time.
pub(super) struct Meter {
    ask: SyncSender<()>,
    unflushed: Cell<u64>,
}

impl Meter {
    /// Takes note of bytes that were written.
    pub(super) fn add(&self, bytes: usize) {
        let unflushed = self.unflushed.get() + bytes as u64;
        // A flush that is asked for already will do. One that failed is told of in the end.
        if unflushed >= FLUSH_EVERY && self.ask.try_send(()).is_ok() {
            self.unflushed.set(0);
        } else {
            self.unflushed.set(unflushed);
        }
    }
}

/// Tells whether this kernel's `syncfs` tells of all that could not be written. Older ones tell only who asks for the file.
pub(super) fn flush_tells_all() -> bool {
    let name = rustix::system::uname();
    tells(&name.release().to_string_lossy())
}

fn tells(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let (major, minor) = (numbers.next(), numbers.next());
    matches!((major, minor), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= TELLING_KERNEL)
}

fn failed(path: &Path, source: io::Error) -> UnpackError {
    UnpackError::Write {
        path: path.display().to_string(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_known_by_its_first_two_numbers() {
        for (release, expected) in [
            ("6.1.0-13-amd64", true),
            ("5.8.0", true),
            ("5.10.237-230.949.amzn2.x86_64", true),
            ("5.7.19", false),
            ("4.14.355-275.570.amzn2.x86_64", false),
            ("odd", false),
            ("6", false),
        ] {
            assert_eq!(tells(release), expected, "{release}");
        }
    }

    #[test]
    fn what_is_written_is_flushed_meanwhile_and_failures_are_passed_on() {
        let directory = tempfile::tempdir().unwrap();
        let targets = ["a", "b"].map(|name| directory.path().join(name));
        let disks = Disks::open(&targets).unwrap();
        assert_eq!(disks.0.len(), 1);
        let asked = disks.while_flushing(|meter| {
            meter.add(usize::try_from(FLUSH_EVERY).unwrap());
            meter.add(1);
            Ok(meter.unflushed.get())
        });
        assert_eq!(asked.unwrap(), 1);
        let failing = disks.while_flushing::<()>(|_| {
            let source = io::Error::other("full");
            Err(failed(directory.path(), source))
        });
        assert!(matches!(failing, Err(UnpackError::Write { .. })));
    }
}
