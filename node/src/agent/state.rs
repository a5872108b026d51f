//! The agent's directory on the node, with a record of each operation that has finished.
//!
//! SSM delivers a command at least once and has no idempotency token. The record makes a second delivery harmless: it gets
//! the same report.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use shared::exit_code::ExitCode;
use shared::operation::Operation;
use shared::report::Report;

use crate::agent::failure::{OrFail as _, Result};
use crate::files::unless_missing;

/// The agent's directory, relative to the root.
pub(crate) const DIRECTORY: &str = "var/lib/rekindle";

/// The most records that are kept, besides those of a launch.
const MOST_RECORDS: usize = 64;

/// The agent's directory.
#[derive(Debug, Clone)]
pub(crate) struct State {
    root: PathBuf,
    directory: PathBuf,
}

impl State {
    /// Creates the directory if it is missing. Only root can read it.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let state = Self {
            root: root.to_owned(),
            directory: root.join(DIRECTORY),
        };
        make_directory(&state.directory)?;
        make_directory(&state.directory.join("operations"))?;
        Ok(state)
    }

    /// Returns the prefix of every path on the node.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the agent's directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the report of an operation that has finished, or `None`. An unreadable record is an error: the operation
    /// must not run again by mistake.
    pub(crate) fn recorded(&self, operation: &Operation) -> Result<Option<Report>> {
        let path = self.path(operation);
        let Some(bytes) = read_if_exists(&path)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .or_fail(ExitCode::NodeState, || {
                let path = path.display();
                format!("cannot read {path}; remove it to run the operation again")
            })
    }

    /// Records the report of an operation that has finished: a success, or a failure that would repeat. Any other failure
    /// is not recorded, so that the operation can run again.
    pub(crate) fn record(&self, report: &Report) -> Result<()> {
        let operation = match report {
            Report::Backup(backup) => &backup.operation_id,
            Report::Restore(restore) => &restore.operation_id,
            Report::Failure(failure) if failure.exit_code.permanent() => &failure.operation_id,
            Report::Failure(_) => return Ok(()),
        };
        let path = self.path(operation);
        let bytes =
            serde_json::to_vec(report).or_fail(ExitCode::NodeState, || cannot("write", &path))?;
        write_durably(&path, &bytes)?;
        self.remove_old_records()
    }

    /// Removes the records of all launch restores, so that they can run again.
    pub(crate) fn forget_launches(&self) -> Result<()> {
        for record in self.records()? {
            if record.is_of_launch() {
                remove(&record.path)?;
            }
        }
        Ok(())
    }

    fn path(&self, operation: &Operation) -> PathBuf {
        self.directory
            .join("operations")
            .join(format!("{operation}.json"))
    }

    fn records(&self) -> Result<Vec<Record>> {
        let directory = self.directory.join("operations");
        let doing = || cannot("list", &directory);
        let mut records = Vec::new();
        for entry in std::fs::read_dir(&directory).or_fail(ExitCode::NodeState, doing)? {
            let entry = entry.or_fail(ExitCode::NodeState, doing)?;
            let metadata = entry.metadata().or_fail(ExitCode::NodeState, doing)?;
            records.push(Record {
                path: entry.path(),
                modified: metadata.modified().or_fail(ExitCode::NodeState, doing)?,
            });
        }
        Ok(records)
    }

    fn remove_old_records(&self) -> Result<()> {
        let mut records = self.records()?;
        // A launch may be repeated at any time, so its records are kept whatever their age.
        records.retain(|record| !record.is_of_launch());
        records.sort_by_key(|record| std::cmp::Reverse(record.modified));
        for record in records.iter().skip(MOST_RECORDS) {
            remove(&record.path)?;
        }
        Ok(())
    }
}

struct Record {
    path: PathBuf,
    modified: SystemTime,
}

impl Record {
    /// Returns whether this is the record of a launch restore.
    fn is_of_launch(&self) -> bool {
        let id = self.path.file_stem().and_then(OsStr::to_str);
        let operation = id.and_then(|id| id.parse().ok());
        matches!(operation, Some(Operation::LaunchRestore(_)))
    }
}

fn make_directory(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        // The script that fetched the agent may have created the directory with a wider mode.
        .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(0o700)))
        .or_fail(ExitCode::NodeState, || cannot("create", path))
}

/// Reads a file of the agent's directory. Returns `None` if there is none.
pub(crate) fn read_if_exists(path: &Path) -> Result<Option<Vec<u8>>> {
    unless_missing(std::fs::read(path)).or_fail(ExitCode::NodeState, || cannot("read", path))
}

/// Removes a file of the agent's directory, if it exists.
pub(crate) fn remove(path: &Path) -> Result<()> {
    unless_missing(std::fs::remove_file(path))
        .map(drop)
        .or_fail(ExitCode::NodeState, || cannot("remove", path))
}

/// Writes a file so that a crash leaves either the old content or the new one: the new content goes into a temporary file
/// first, which is synced and then renamed.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let doing = || cannot("write", path);
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory).or_fail(ExitCode::NodeState, doing)?;
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
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .or_fail(ExitCode::NodeState, doing)
}

fn cannot(verb: &str, path: &Path) -> String {
    format!("cannot {verb} {}", path.display())
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
    fn only_root_can_read_the_directory() {
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
    fn the_report_of_a_finished_operation_is_recorded_and_a_transient_failure_is_not() {
        let (_root, state) = state();
        let refusal = failure("launch-i-0000000a", ExitCode::NotRestored);
        state.record(&refusal).unwrap();
        state
            .record(&failure("launch-i-0000000b", ExitCode::Dump))
            .unwrap();
        assert_eq!(
            state
                .recorded(&"launch-i-0000000a".parse().unwrap())
                .unwrap(),
            Some(refusal)
        );
        assert_eq!(
            state
                .recorded(&"launch-i-0000000b".parse().unwrap())
                .unwrap(),
            None
        );
        state.forget_launches().unwrap();
        assert_eq!(
            state
                .recorded(&"launch-i-0000000a".parse().unwrap())
                .unwrap(),
            None
        );
    }

    #[test]
    fn an_unreadable_record_is_an_error() {
        let (root, state) = state();
        std::fs::write(
            root.path()
                .join(DIRECTORY)
                .join("operations/launch-i-0000000a.json"),
            "{",
        )
        .unwrap();
        let failure = state
            .recorded(&"launch-i-0000000a".parse().unwrap())
            .unwrap_err();
        assert_eq!(failure.code, ExitCode::NodeState);
    }

    #[test]
    fn old_records_are_removed_but_never_those_of_a_launch() {
        let (_root, state) = state();
        state
            .record(&failure("launch-i-0123abcd", ExitCode::NoUsableBackup))
            .unwrap();
        for number in 0..MOST_RECORDS + 10 {
            let operation = format!("20261123T0215{:02}.{:03}Z", number / 1000, number % 1000);
            state
                .record(&failure(&operation, ExitCode::NotRestored))
                .unwrap();
        }
        let records = state.records().unwrap();
        assert_eq!(records.len(), MOST_RECORDS + 1);
        assert!(
            state
                .recorded(&"launch-i-0123abcd".parse().unwrap())
                .unwrap()
                .is_some()
        );
        let newest = MOST_RECORDS + 9;
        let newest = format!("20261123T0215{:02}.{:03}Z", newest / 1000, newest % 1000);
        assert!(state.recorded(&newest.parse().unwrap()).unwrap().is_some());
    }
}
