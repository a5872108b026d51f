//! The node's lock: one operation at a time runs on a node.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use shared::budget;
use shared::exit_code::ExitCode;
use shared::operation::Operation;
use tokio::time::{Instant, sleep};

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::state::State;

/// The pause between two attempts to take the lock.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// How an operation waits for another one that holds the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitPolicy {
    /// It fails at once. This is for a scheduled backup: the next tick sends another.
    DoNotWait,
    /// It waits until a backup has finished. This is for a restore, which is not sent again.
    UntilFree,
    /// It ends a running backup, then waits. This is for a final backup: it has the newest rows, and the terminate hook
    /// has no time to wait for another backup.
    Preempt,
}

impl WaitPolicy {
    /// Returns how long to wait for the holder. Every policy waits for another run of the same operation, because that
    /// run has the report.
    fn limit(self, operation: &Operation, holder: &Holder) -> Duration {
        if holder.operation().as_ref() == Some(operation) {
            return budget::seconds(budget::RESTORE_EXECUTION);
        }
        match self {
            Self::DoNotWait => Duration::ZERO,
            Self::UntilFree | Self::Preempt => budget::seconds(budget::BACKUP_EXECUTION),
        }
    }
}

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Otherwise, until the next holder has written its own operation, others would read this process and its
        // operation.
        self.file.set_len(0).ok();
    }
}

impl Lock {
    /// Takes the lock, or fails with `Busy` after the time that the policy allows.
    pub(crate) async fn acquire(
        state: &State,
        operation: &Operation,
        policy: WaitPolicy,
    ) -> Result<Self> {
        let mut lock = LockFile::open(state.directory().join("lock"))?;
        let (started, mut preempted) = (Instant::now(), false);
        while !lock.try_lock()? {
            let holder = lock.holder()?;
            if policy == WaitPolicy::Preempt && !preempted && holder.can_be_preempted() {
                holder.preempt();
                preempted = true;
            }
            if started.elapsed() >= policy.limit(operation, &holder) {
                let message = format!(
                    "cannot run operation {operation}: the node is busy with {}; send it again after that has finished",
                    holder.operation
                );
                return Err(Failure::new(ExitCode::Busy, message));
            }
            sleep(RETRY_EVERY).await;
        }
        lock.write_holder(operation)?;
        Ok(Self { file: lock.file })
    }
}

/// The operation that holds the lock, and its process. Both are empty until the holder has written them.
struct Holder {
    operation: String,
    process: String,
}

impl Holder {
    /// Returns the holder's operation, or `None` before the holder has written it.
    fn operation(&self) -> Option<Operation> {
        self.operation.parse().ok()
    }

    fn can_be_preempted(&self) -> bool {
        self.operation().is_some_and(|one| one.can_be_preempted())
    }

    /// Sends SIGUSR1 to the agent that runs the backup. It then ends as `Busy`.
    fn preempt(&self) {
        let process = self.process.parse().ok().and_then(Pid::from_raw);
        let signalled = process.map(|process| kill_process(process, Signal::USR1));
        tracing::info!(
            backup = self.operation,
            ?process,
            ?signalled,
            "preempting a running backup"
        );
    }
}

struct LockFile {
    path: PathBuf,
    file: File,
}

impl LockFile {
    fn open(path: PathBuf) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .or_fail(ExitCode::NodeState, || cannot_lock(&path))?;
        Ok(Self { path, file })
    }

    fn try_lock(&self) -> Result<bool> {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(false),
            Err(error) => Err(error).or_fail(ExitCode::NodeState, || cannot_lock(&self.path)),
        }
    }

    fn holder(&mut self) -> Result<Holder> {
        let mut text = String::new();
        self.file
            .rewind()
            .and_then(|()| self.file.read_to_string(&mut text))
            .or_fail(ExitCode::NodeState, || cannot_lock(&self.path))?;
        let (operation, process) = text.split_once(' ').unwrap_or((&text, ""));
        Ok(Holder {
            operation: operation.to_owned(),
            process: process.to_owned(),
        })
    }

    fn write_holder(&mut self, operation: &Operation) -> Result<()> {
        let holder = format!("{operation} {}", std::process::id());
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .and_then(|()| self.file.write_all(holder.as_bytes()))
            .or_fail(ExitCode::NodeState, || cannot_lock(&self.path))
    }
}

fn cannot_lock(path: &Path) -> String {
    format!("cannot lock {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_operation_at_a_time_holds_the_node() {
        let root = tempfile::tempdir().unwrap();
        let state = State::open(root.path()).unwrap();
        let one = "20261123T021500.000Z".parse().unwrap();
        let other = "20261123T023000.000Z".parse().unwrap();
        let held = Lock::acquire(&state, &one, WaitPolicy::DoNotWait).await;
        let held = held.unwrap();
        let refused = Lock::acquire(&state, &other, WaitPolicy::DoNotWait).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code, ExitCode::Busy);
        assert_eq!(
            refused.chain(),
            "cannot run operation 20261123T023000.000Z: the node is busy with 20261123T021500.000Z; send it again after \
             that has finished"
        );

        // Another run of the same operation waits for the first one, and so does an operation that may wait.
        let same = async {
            let lock = Lock::acquire(&state, &one, WaitPolicy::DoNotWait).await;
            lock.map(drop)
        };
        let waiting = async {
            let lock = Lock::acquire(&state, &other, WaitPolicy::UntilFree).await;
            lock.map(drop)
        };
        let freed = async {
            sleep(Duration::from_millis(50)).await;
            drop(held);
        };
        let (same, waiting, ()) = tokio::join!(same, waiting, freed);
        same.unwrap();
        waiting.unwrap();
    }
}
