//! Threads that write small files while the next ones are decoded. For a small file, most of the time is the kernel's
//! work for its name and attributes.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::files::create_private_file;
use crate::restore::unpack::attributes::Attributes;
use crate::restore::unpack::error::{Result, UnpackError};

/// The size up to which a file is small, in bytes.
pub(super) const SMALL: u64 = 256 * 1024;
/// The most files that wait for a thread: at most 4 MiB.
const WAITING: usize = 16;
/// The most threads. More would only wait for the same directories.
const MOST_THREADS: usize = 4;

/// A file to write.
pub(super) struct SmallFile {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
    pub(super) attributes: Attributes,
}

/// The threads and the files that they share.
pub(super) struct Writers {
    is_root: bool,
    work: Mutex<Work>,
    changed: Condvar,
}

#[derive(Default)]
struct Work {
    waiting: VecDeque<SmallFile>,
    being_written: usize,
    no_more: bool,
    failure: Option<UnpackError>,
}

/// Runs `work`, which passes files to the threads, and waits until all files are written.
pub(super) fn with_writers<T>(
    is_root: bool,
    work: impl FnOnce(&Writers) -> Result<T>,
) -> Result<T> {
    let writers = Writers {
        is_root,
        work: Mutex::default(),
        changed: Condvar::new(),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let done = std::thread::scope(|scope| {
        for _ in 0..cores.min(MOST_THREADS) {
            scope.spawn(|| writers.run());
        }
        let done = work(&writers);
        writers.lock().no_more = true;
        writers.changed.notify_all();
        done
    });
    let failure = writers.lock().failure.take();
    // The failure of a thread also stops `work`, and is the cause.
    failure.map_or(done, Err)
}

impl Writers {
    /// Passes a file to the threads. Fails if an earlier file could not be written.
    pub(super) fn write(&self, file: SmallFile) -> Result<()> {
        let mut work = self.lock();
        while work.waiting.len() >= WAITING && work.failure.is_none() {
            work = self.wait(work);
        }
        if let Some(failure) = work.failure.take() {
            return Err(failure);
        }
        work.waiting.push_back(file);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits until all files are written, for example before one becomes the target of a hard link.
    pub(super) fn finish(&self) -> Result<()> {
        let mut work = self.lock();
        while work.being_written > 0 || (!work.waiting.is_empty() && work.failure.is_none()) {
            work = self.wait(work);
        }
        work.failure.take().map_or(Ok(()), Err)
    }

    /// Writes files until there are no more, or one cannot be written.
    fn run(&self) {
        loop {
            let mut work = self.lock();
            let next = loop {
                if work.failure.is_some() {
                    return;
                }
                match work.waiting.pop_front() {
                    Some(next) => break next,
                    None if work.no_more => return,
                    None => work = self.wait(work),
                }
            };
            work.being_written += 1;
            drop(work);
            let written = next.write(self.is_root);
            let mut work = self.lock();
            work.being_written -= 1;
            if let Err(source) = written {
                work.failure
                    .get_or_insert_with(|| UnpackError::write(&next.path, source));
            }
            drop(work);
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'w>(&self, work: MutexGuard<'w, Work>) -> MutexGuard<'w, Work> {
        let waited = self.changed.wait(work);
        waited.unwrap_or_else(PoisonError::into_inner)
    }
}

impl SmallFile {
    fn write(&self, is_root: bool) -> io::Result<()> {
        let mut file = create_private_file(&self.path)?;
        file.write_all(&self.bytes)?;
        drop(file);
        self.attributes.apply(&self.path, is_root)
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::Timespec;

    use super::*;

    fn small(path: PathBuf) -> SmallFile {
        let attributes = Attributes {
            mode: 0o600,
            uid: u64::from(rustix::process::geteuid().as_raw()),
            gid: u64::from(rustix::process::getegid().as_raw()),
            modified: Timespec {
                tv_sec: 1,
                tv_nsec: 2,
            },
            extended: Vec::new(),
            flags: rustix::fs::IFlags::empty(),
        };
        SmallFile {
            path,
            bytes: b"text".to_vec(),
            attributes,
        }
    }

    #[test]
    fn all_files_exist_after_waiting_and_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = |number: usize| directory.path().join(number.to_string());
        with_writers(false, |writers| {
            for number in 0..100 {
                writers.write(small(path(number)))?;
            }
            writers.finish()?;
            assert!((0..100).all(|number| path(number).exists()));
            writers.write(small(path(100)))
        })
        .unwrap();
        assert_eq!(std::fs::read(path(100)).unwrap(), b"text");
    }

    #[test]
    fn the_first_file_that_cannot_be_written_is_the_failure() {
        let directory = tempfile::tempdir().unwrap();
        let bad = directory.path().join("missing/file");
        let result = with_writers(false, |writers| {
            writers.write(small(bad.clone()))?;
            for number in 0..1_000 {
                writers.write(small(directory.path().join(number.to_string())))?;
            }
            Ok(())
        });
        let failure = result.unwrap_err().to_string();
        assert!(failure.ends_with("missing/file"), "{failure}");
    }
}
