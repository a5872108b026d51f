//! Flushes unpacked files to the disk while more are unpacked.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::restore::unpack::error::{Result, UnpackError};

/// How many bytes are written between two flushes. The disk works while the next bytes are decoded.
const FLUSH_EVERY: u64 = 64 * 1024 * 1024;

/// The first kernel version with a `syncfs` that reports write errors.
const REPORTING_KERNEL: (u32, u32) = (5, 8);

/// The file systems of the targets, each with a directory on it.
pub(super) struct Disks(Vec<(PathBuf, File)>);

impl Disks {
    /// Opens a directory on each file system. From then on, a flush reports every write error.
    pub(super) fn open<'p>(targets: impl IntoIterator<Item = &'p PathBuf>) -> Result<Self> {
        let (mut known, mut disks) = (BTreeSet::new(), Vec::new());
        for target in targets {
            let beside = target.parent().unwrap_or(Path::new("/"));
            let opened = File::open(beside).and_then(|directory| {
                let device = directory.metadata()?.dev();
                Ok((device, directory))
            });
            let (device, directory) =
                opened.map_err(|source| UnpackError::write(beside, source))?;
            if known.insert(device) {
                disks.push((beside.to_owned(), directory));
            }
        }
        Ok(Self(disks))
    }

    /// Waits until everything is on the disk.
    pub(super) fn flush(&self) -> Result<()> {
        self.0.iter().try_for_each(|(path, directory)| {
            let flushed = rustix::fs::syncfs(directory);
            flushed.map_err(|errno| UnpackError::write(path, errno))
        })
    }

    /// Runs `work`, which writes files, and meanwhile flushes what was already written.
    pub(super) fn while_flushing<T>(&self, work: impl FnOnce(&Meter) -> Result<T>) -> Result<T> {
        let (request, requests) = sync_channel(1);
        std::thread::scope(|scope| {
            let flushing = scope.spawn(move || requests.iter().try_for_each(|()| self.flush()));
            let meter = Meter {
                request,
                unflushed: Cell::new(0),
            };
            let done = work(&meter);
            drop(meter);
            let flushed = flushing.join().unwrap_or_else(|_| {
                let panicked = io::Error::other("the thread that flushes the disk panicked");
                Err(UnpackError::write(Path::new("/"), panicked))
            });
            let done = done?;
            flushed.map(|()| done)
        })
    }
}

/// Counts written bytes, and requests a flush from time to time.
pub(super) struct Meter {
    request: SyncSender<()>,
    unflushed: Cell<u64>,
}

impl Meter {
    /// Counts bytes that were written.
    pub(super) fn add(&self, bytes: usize) {
        let unflushed = self.unflushed.get() + bytes as u64;
        // If a flush is already requested, that one is enough. A failed flush is reported at the end.
        if unflushed >= FLUSH_EVERY && self.request.try_send(()).is_ok() {
            self.unflushed.set(0);
        } else {
            self.unflushed.set(unflushed);
        }
    }
}

/// Returns whether this kernel's `syncfs` reports write errors. On older kernels, only `fsync` of the file does.
pub(super) fn flush_reports_errors() -> bool {
    let name = rustix::system::uname();
    reports_errors(&name.release().to_string_lossy())
}

fn reports_errors(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let (major, minor) = (numbers.next(), numbers.next());
    matches!((major, minor), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= REPORTING_KERNEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_two_numbers_of_the_kernel_version_count() {
        for (release, expected) in [
            ("6.1.0-13-amd64", true),
            ("5.8.0", true),
            ("5.10.237-230.949.amzn2.x86_64", true),
            ("5.7.19", false),
            ("4.14.355-275.570.amzn2.x86_64", false),
            ("odd", false),
            ("6", false),
        ] {
            assert_eq!(reports_errors(release), expected, "{release}");
        }
    }

    #[test]
    fn bytes_are_flushed_meanwhile_and_failures_are_returned() {
        let directory = tempfile::tempdir().unwrap();
        let targets = ["a", "b"].map(|name| directory.path().join(name));
        let disks = Disks::open(&targets).unwrap();
        assert_eq!(disks.0.len(), 1);
        let unflushed = disks.while_flushing(|meter| {
            meter.add(usize::try_from(FLUSH_EVERY).unwrap());
            meter.add(1);
            Ok(meter.unflushed.get())
        });
        assert_eq!(unflushed.unwrap(), 1);
        let failing = disks.while_flushing::<()>(|_| {
            let source = io::Error::other("full");
            Err(UnpackError::write(directory.path(), source))
        });
        assert!(matches!(failing, Err(UnpackError::Write { .. })));
    }
}
