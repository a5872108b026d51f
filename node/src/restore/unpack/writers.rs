//! Threads that write small files, while the next ones are decoded: what a small file costs is mostly the kernel's work for
//! its name and attributes.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::{Attributes, Result, UnpackError};

/// The largest file that counts as small, in bytes.
pub(super) const SMALL: u64 = 256 * 1024;
/// Files that wait for a thread: 4 MiB at the most.
const WAITING: usize = 16;
/// More would only wait for the same directories.
const MOST_THREADS: usize = 4;

/// A file that is to be made.
pub(super) struct Small {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
    pub(super) attributes: Attributes,
}

/// The threads' work.
pub(super) struct Writers {
    is_root: bool,
    work: Mutex<Work>,
    changed: Condvar,
}

#[derive(Default)]
struct Work {
    waiting: VecDeque<Small>,
    being_written: usize,
    no_more: bool,
    failure: Option<UnpackError>,
}

/// Does something that puts files, and waits until all of them are written.
pub(super) fn beside<T>(is_root: bool, put: impl FnOnce(&Writers) -> Result<T>) -> Result<T> {
    let writers = Writers {
        is_root,
        work: Mutex::default(),
        changed: Condvar::new(),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let done = std::thread::scope(|scope| {
        for _ in 0..cores.min(MOST_THREADS) {
            scope.spawn(|| writers.write());
        }
        let done = put(&writers);
        writers.lock().no_more = true;
        writers.changed.notify_all();
        done
    });
    let failure = writers.lock().failure.take();
    // What stopped the threads stops whoever puts files for them, and is the cause.
    failure.map_or(done, Err)
}

impl Writers {
    /// Has a file written. It fails where one before could not be.
    pub(super) fn put(&self, file: Small) -> Result<()> {
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

    /// Waits until every file is there that was put: another name may be linked to it.
    pub(super) fn finish(&self) -> Result<()> {
        let mut work = self.lock();
        while work.being_written > 0 || (!work.waiting.is_empty() && work.failure.is_none()) {
            work = self.wait(work);
        }
        work.failure.take().map_or(Ok(()), Err)
    }

    /// Writes files until there are no more, or one cannot be written.
    fn write(&self) {
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
            let made = next.make(self.is_root);
            let mut work = self.lock();
            work.being_written -= 1;
            if let Err(source) = made {
                let path = next.path.display().to_string();
                work.failure
                    .get_or_insert(UnpackError::Write { path, source });
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

impl Small {
    fn make(&self, is_root: bool) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.path)?;
        file.write_all(&self.bytes)?;
        drop(file);
        self.attributes.apply(&self.path, is_root)
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::Timespec;

    use super::*;

    fn small(path: PathBuf) -> Small {
        let attributes = Attributes {
            mode: 0o600,
            uid: u64::from(rustix::process::geteuid().as_raw()),
            gid: u64::from(rustix::process::getegid().as_raw()),
            modified: Timespec {
                tv_sec: 1,
                tv_nsec: 2,
            },
            extended: Vec::new(),
        };
        Small {
            path,
            bytes: b"text".to_vec(),
            attributes,
        }
    }

    #[test]
    fn all_files_are_there_in_the_end_and_when_they_are_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = |number: usize| directory.path().join(number.to_string());
        beside(false, |writers| {
            for number in 0..100 {
                writers.put(small(path(number)))?;
            }
            writers.finish()?;
            assert!((0..100).all(|number| path(number).exists()));
            writers.put(small(path(100)))
        })
        .unwrap();
        assert_eq!(std::fs::read(path(100)).unwrap(), b"text");
    }

    #[test]
    fn the_first_file_that_cannot_be_written_ends_it() {
        let directory = tempfile::tempdir().unwrap();
        let bad = directory.path().join("missing/file");
        let put = beside(false, |writers| {
            writers.put(small(bad.clone()))?;
            for number in 0..1_000 {
                writers.put(small(directory.path().join(number.to_string())))?;
            }
            Ok(())
        });
        let failure = put.unwrap_err().to_string();
        assert!(failure.ends_with("missing/file"), "{failure}");
    }
}
