//! The agent's own directory: the lock of the host, and what each operation came to.
//!
//! The node is the arbiter of exactly-once. SSM delivers a command at least once and knows no idempotency
//! token, so the answer to an operation is kept here and given again.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use shared::id::{BackupId, OperationId};
use shared::report::{ExitCode, Report};
use tokio::time::Instant;

use crate::agent::failure::{Failure, OrFail as _, Result};

/// Where the agent keeps its state, below the root.
pub(crate) const DIRECTORY: &str = "var/lib/rekindle";

/// Operation records that are kept; the restore of this launch is kept whatever its age.
const MOST_RECORDS: usize = 64;

/// The operations of a launch, whose records age never removes: a repeated launch must be answered as before.
pub(crate) const LAUNCH_PREFIX: &str = "launch-";

/// How often a taken lock is tried again.
const LOCK_EVERY: Duration = Duration::from_millis(100);

/// The agent's directory.
#[derive(Debug, Clone)]
pub(crate) struct State {
    root: PathBuf,
    directory: PathBuf,
}

/// How an operation waits for the lock of the host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    /// For how long, where another operation holds it.
    pub(crate) others: Duration,
    /// For how long, where another run of the same operation holds it.
    pub(crate) own: Duration,
    /// Whether a backup that holds it is asked to end: the one that waits is the node's last.
    pub(crate) asks_for_way: bool,
}

/// The lock of the host, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Whoever takes it next must not be mistaken for this process in the moment before it has signed.
        self.file.set_len(0).ok();
    }
}

impl State {
    /// Makes the directory where it is missing, for root's eyes only.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let state = Self {
            root: root.to_owned(),
            directory: root.join(DIRECTORY),
        };
        make_directory(&state.directory)?;
        make_directory(&state.directory.join("operations"))?;
        Ok(state)
    }

    /// Returns what every path of the node is prefixed with.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the lock of the host. An operation that meets itself waits for its other run's answer; one that
    /// meets another waits as long as `waiting` says. Both are bounded.
    pub(crate) async fn lock(&self, operation: &OperationId, waiting: Waiting) -> Result<Lock> {
        let path = self.directory.join("lock");
        let doing = || format!("lock {}", path.display());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .or_fail(ExitCode::NodeState, doing)?;
        let (started, mut asked) = (Instant::now(), false);
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).or_fail(ExitCode::NodeState, doing),
            }
            let mut text = String::new();
            file.rewind().or_fail(ExitCode::NodeState, doing)?;
            file.read_to_string(&mut text)
                .or_fail(ExitCode::NodeState, doing)?;
            // Between taking the lock and writing who took it, the text is empty.
            let (holder, process) = text.split_once(' ').unwrap_or((&text, ""));
            let patience = if holder == operation.as_str() {
                waiting.own
            } else {
                waiting.others
            };
            if waiting.asks_for_way && !asked && holder.parse::<BackupId>().is_ok() {
                ask_for_way(process);
                asked = true;
            }
            if started.elapsed() >= patience {
                let message = format!("operation {operation} found the node busy with {holder}");
                return Err(Failure::new(ExitCode::Busy, message));
            }
            tokio::time::sleep(LOCK_EVERY).await;
        }
        file.set_len(0).or_fail(ExitCode::NodeState, doing)?;
        file.rewind().or_fail(ExitCode::NodeState, doing)?;
        let holder = format!("{operation} {}", std::process::id());
        file.write_all(holder.as_bytes())
            .or_fail(ExitCode::NodeState, doing)?;
        Ok(Lock { file })
    }

    /// Returns what the operation came to, where it is settled: a success, or a refusal that would repeat.
    pub(crate) fn recall(&self, operation: &OperationId) -> Result<Option<Report>> {
        let path = self.record(operation);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error)
                    .or_fail(ExitCode::NodeState, || format!("read {}", path.display()));
            }
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .or_fail(ExitCode::NodeState, || {
                format!(
                    "read {}: remove it to run the operation again",
                    path.display()
                )
            })
    }

    /// Keeps what the operation came to, if that settles it. A transient failure is not kept: the same
    /// operation may run again.
    pub(crate) fn remember(&self, report: &Report) -> Result<()> {
        let operation = match report {
            Report::Backup(backup) => &backup.operation_id,
            Report::Restore(restore) => &restore.operation_id,
            Report::Failure(failure) if failure.exit_code.permanent() => &failure.operation_id,
            Report::Failure(_) => return Ok(()),
        };
        let path = self.record(operation);
        let bytes = serde_json::to_vec(report)
            .or_fail(ExitCode::NodeState, || format!("write {}", path.display()))?;
        write_durably(&path, &bytes)?;
        self.drop_old_records()
    }

    /// Forgets every operation whose id begins with `prefix`.
    pub(crate) fn forget(&self, prefix: &str) -> Result<()> {
        for record in self.records()? {
            if record.name.starts_with(prefix) {
                remove(&record.path)?;
            }
        }
        Ok(())
    }

    fn record(&self, operation: &OperationId) -> PathBuf {
        self.directory
            .join("operations")
            .join(format!("{operation}.json"))
    }

    fn records(&self) -> Result<Vec<Record>> {
        let directory = self.directory.join("operations");
        let doing = || format!("list {}", directory.display());
        let mut records = Vec::new();
        for entry in std::fs::read_dir(&directory).or_fail(ExitCode::NodeState, doing)? {
            let entry = entry.or_fail(ExitCode::NodeState, doing)?;
            let metadata = entry.metadata().or_fail(ExitCode::NodeState, doing)?;
            records.push(Record {
                name: entry.file_name().to_string_lossy().into_owned(),
                path: entry.path(),
                modified: metadata.modified().or_fail(ExitCode::NodeState, doing)?,
            });
        }
        Ok(records)
    }

    fn drop_old_records(&self) -> Result<()> {
        let mut records = self.records()?;
        records.retain(|record| !record.name.starts_with(LAUNCH_PREFIX));
        records.sort_by_key(|record| std::cmp::Reverse(record.modified));
        for record in records.iter().skip(MOST_RECORDS) {
            remove(&record.path)?;
        }
        Ok(())
    }
}

struct Record {
    name: String,
    path: PathBuf,
    modified: SystemTime,
}

/// Asks the agent that takes another backup to end it.
fn ask_for_way(process: &str) {
    let process = process.parse().ok().and_then(Pid::from_raw);
    let asked = process.map(|process| kill_process(process, Signal::USR1));
    tracing::info!(?process, ?asked, "asked another backup to give way");
}

fn make_directory(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        // Whoever fetched the agent may have made the directory for everybody's eyes.
        .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(0o700)))
        .or_fail(ExitCode::NodeState, || format!("make {}", path.display()))
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).or_fail(ExitCode::NodeState, || format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Writes beside the file, then renames: temporary file, fsync, rename, fsync of the directory.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let doing = || format!("write {}", path.display());
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .or_fail(ExitCode::NodeState, doing)?;
    file.write_all(bytes).or_fail(ExitCode::NodeState, doing)?;
    file.sync_all().or_fail(ExitCode::NodeState, doing)?;
    std::fs::rename(&temporary, path).or_fail(ExitCode::NodeState, doing)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .or_fail(ExitCode::NodeState, doing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::report::FailureReport;

    fn failure(operation: &str, exit_code: ExitCode) -> Report {
        Report::Failure(FailureReport {
            operation_id: operation.parse().unwrap(),
            exit_code,
            message: "m".to_owned(),
        })
    }

    fn state() -> (tempfile::TempDir, State) {
        let root = tempfile::tempdir().unwrap();
        let state = State::open(root.path()).unwrap();
        (root, state)
    }

    #[test]
    fn the_directory_is_for_root_alone() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join(DIRECTORY)).unwrap();
        State::open(root.path()).unwrap();
        let mode = std::fs::metadata(root.path().join(DIRECTORY))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_settled_operation_is_recalled_and_a_transient_failure_is_not() {
        let (_root, state) = state();
        let refusal = failure("a", ExitCode::NotRestored);
        state.remember(&refusal).unwrap();
        state.remember(&failure("b", ExitCode::Dump)).unwrap();
        assert_eq!(state.recall(&"a".parse().unwrap()).unwrap(), Some(refusal));
        assert_eq!(state.recall(&"b".parse().unwrap()).unwrap(), None);
        state.forget("a").unwrap();
        assert_eq!(state.recall(&"a".parse().unwrap()).unwrap(), None);
    }

    #[test]
    fn an_unreadable_record_is_an_error_and_not_a_licence_to_run_again() {
        let (root, state) = state();
        std::fs::write(root.path().join(DIRECTORY).join("operations/a.json"), "{").unwrap();
        let failure = state.recall(&"a".parse().unwrap()).unwrap_err();
        assert_eq!(failure.code, ExitCode::NodeState);
    }

    #[test]
    fn records_are_bounded_and_the_launch_is_never_forgotten() {
        let (_root, state) = state();
        state
            .remember(&failure("launch-i-0123abcd", ExitCode::NoUsableBackup))
            .unwrap();
        for number in 0..MOST_RECORDS + 10 {
            let operation = format!("backup{number:03}");
            state
                .remember(&failure(&operation, ExitCode::NotRestored))
                .unwrap();
        }
        let records = state.records().unwrap();
        assert_eq!(records.len(), MOST_RECORDS + 1);
        assert!(
            state
                .recall(&"launch-i-0123abcd".parse().unwrap())
                .unwrap()
                .is_some()
        );
        let newest = format!("backup{:03}", MOST_RECORDS + 9);
        assert!(state.recall(&newest.parse().unwrap()).unwrap().is_some());
    }

    #[tokio::test]
    async fn one_operation_at_a_time_holds_the_node() {
        let (_root, state) = state();
        let (one, other) = ("one".parse().unwrap(), "other".parse().unwrap());
        let long = Duration::from_secs(20);
        let waiting = |others, own| Waiting {
            others,
            own,
            asks_for_way: false,
        };
        let impatient = waiting(Duration::ZERO, long);
        let held = state.lock(&one, impatient).await.unwrap();
        let refused = state.lock(&other, impatient).await.unwrap_err();
        assert_eq!(refused.code, ExitCode::Busy);
        assert_eq!(
            refused.chain(),
            "operation other found the node busy with one"
        );

        // The same operation waits for its other run; so does one that is patient.
        let again = state.lock(&one, impatient);
        let patient = state.lock(&other, waiting(long, Duration::ZERO));
        let freed = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(held);
        };
        let again = async { again.await.map(drop) };
        let patient = async { patient.await.map(drop) };
        let (again, patient, ()) = tokio::join!(again, patient, freed);
        again.unwrap();
        patient.unwrap();
    }
}
