//! Loads a dump from S3 into an empty database, as a stream and with the server's own `pg_restore`.
//!
//! A small dump goes through one `pg_restore`. A larger one is split while it is read: several `pg_restore` load its
//! rows, each in its own session. When all rows are loaded, another one creates indexes and constraints with `--jobs`.
//! For the rows, `--jobs` would need the whole archive in a file first.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use shared::exit_code::ExitCode;
use shared::manifest::ObjectRecord;
use shared::report::exceptions::Exception;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::process::{Program, Refused};
use crate::context::Context;
use crate::objects::stream::decode;
use crate::postgres::archive::{self, Entry};
use crate::postgres::quote::connection_string_with_options;
use crate::postgres::session::{restore_options, restore_options_with_search_path};
use crate::restore::checks::{DroppedChecks, TableName};
use crate::s3::download;
use crate::settings::Tablespaces;

/// The capacity of the channel to a `pg_restore`, in chunks.
const WAITING: usize = 4;

/// The smallest dump that is split, in bytes before compression. One `pg_restore` loads a smaller one before several
/// have started.
const WORTH_SPLITTING: u64 = 8 * 1024 * 1024;
/// The maximum number of sessions that restore one database.
const MOST_SESSIONS: usize = 4;

/// Runs `pg_restore` with the number of jobs in `$0` on a copy of its standard input: several processes read the
/// archive, which must be a file. The file is unlinked at once, so nothing is left when the command is killed. If a
/// hardened container has no writable directory, a single process reads standard input itself.
const FROM_UNNAMED_FILE: &str = r#"
for directory in "${TMPDIR:-/tmp}" /tmp /var/tmp /dev/shm /run/postgresql; do
  file=$(mktemp "$directory/rekindle.XXXXXX" 2>/dev/null) && break
done
[ -n "$file" ] || exec pg_restore "$@"
exec 3<>"$file" && rm "$file" && cat >&3 && exec pg_restore --jobs="$0" "$@" /proc/self/fd/3"#;

/// The entries of a dump that the server refused.
#[derive(Debug)]
pub(crate) struct RefusedEntries {
    /// The entries, in the order of the dump.
    pub(crate) entries: Vec<Entry>,
    /// The failure of the first `pg_restore` that met one.
    pub(crate) failure: Failure,
}

impl RefusedEntries {
    /// Returns the tables whose rows the server refused.
    pub(crate) fn tables(&self) -> Vec<TableName> {
        let rows = self
            .entries
            .iter()
            .filter(|entry| entry.kind == "TABLE DATA");
        rows.filter_map(|entry| Some((entry.schema.clone()?, entry.tag.clone())))
            .collect()
    }
}

/// An empty database, and the dump to load into it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'c> {
    pub(crate) context: &'c Context,
    pub(crate) record: &'c ObjectRecord,
    /// The size of the dump before compression, in bytes.
    pub(crate) plain_bytes: u64,
    /// The database's name until the swap.
    pub(crate) database: &'c str,
    pub(crate) server_version: u32,
}

/// Loads a dump into an empty database. Returns the entries that the server refused, or `None` if there are none: like
/// `pg_restore` itself, this goes on after a refused statement.
pub(crate) async fn dump(source: Source<'_>) -> Result<Option<RefusedEntries>> {
    let load = Load::new(source);
    let head = if source.plain_bytes < WORTH_SPLITTING || load.sessions < 2 {
        load.unsplit().await?;
        None
    } else {
        load.split(None).await?
    };
    load.refused_entries(head).await
}

/// Loads a dump into an empty database, for tables whose rows the server refused before: their checks are added when all
/// rows are there, and functions find what they name without its schema, as they do for the application. Returns the
/// entries that the server refused, and the exceptions of the checks. `own_name` is the database's name after the swap.
pub(crate) async fn without_checks(
    source: Source<'_>,
    tables: &[TableName],
    own_name: &str,
) -> Result<(Option<RefusedEntries>, Vec<Exception>)> {
    let load = Load::new(source);
    let mut exceptions = Vec::new();
    let checks = WithoutChecks {
        tables,
        own_name,
        exceptions: &mut exceptions,
    };
    let head = load.split(Some(checks)).await?;
    Ok((load.refused_entries(head).await?, exceptions))
}

/// The checks to add when all rows are loaded.
struct WithoutChecks<'c> {
    tables: &'c [TableName],
    own_name: &'c str,
    exceptions: &'c mut Vec<Exception>,
}

/// Returns the number of sessions that restore one database side by side.
pub fn sessions() -> usize {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MOST_SESSIONS)
}

struct Load<'c> {
    source: Source<'c>,
    /// The options of the sessions.
    options: String,
    sessions: usize,
    /// What the server has refused so far.
    refused: Mutex<Option<Refused>>,
}

impl<'c> Load<'c> {
    fn new(source: Source<'c>) -> Self {
        Self {
            source,
            options: restore_options(source.server_version, sessions()),
            sessions: sessions(),
            refused: Mutex::new(None),
        }
    }

    /// Returns the refused entries. `head` is the archive's table of contents, if it is known.
    async fn refused_entries(self, head: Option<Bytes>) -> Result<Option<RefusedEntries>> {
        let Source {
            context, record, ..
        } = self.source;
        let refused = self.refused.into_inner();
        let Some(refused) = refused.unwrap_or_else(PoisonError::into_inner) else {
            return Ok(None);
        };
        let numbers = refused.entries;
        let entries = match head {
            Some(head) => archive::entries(&head[..], &numbers),
            None => {
                download::read(&context.bucket, record, move |reader| {
                    let decoder =
                        zstd::Decoder::new(reader).map_err(archive::ArchiveError::Read)?;
                    archive::entries(decoder, &numbers)
                })
                .await?
            }
        };
        let entries = entries.or_fail(ExitCode::Verification, || cannot_decode(record))?;
        let failure = refused.failure;
        Ok(Some(RefusedEntries { entries, failure }))
    }

    /// Loads the dump with one `pg_restore`.
    async fn unsplit(&self) -> Result<()> {
        let Source {
            context, record, ..
        } = self.source;
        let (sender, chunks) = mpsc::channel(WAITING);
        let decoding = download::read(&context.bucket, record, move |reader| {
            decode(reader, &sender)
        });
        let loading = self.pg_restore(&[], chunks);
        let (decoded, loaded) = tokio::join!(decoding, loading);
        // A failure to decode the dump is the cause of a failure to load it.
        decoded?.or_fail(ExitCode::Verification, || cannot_decode(record))?;
        loaded
    }

    /// Loads the definitions first, then the rows with several `pg_restore`, then the indexes and constraints. Returns the
    /// archive's table of contents.
    async fn split(&self, checks: Option<WithoutChecks<'_>>) -> Result<Option<Bytes>> {
        let Source {
            context,
            record,
            database,
            ..
        } = self.source;
        let keep_search_path = checks.is_some();
        let (head_sender, head) = oneshot::channel();
        let (senders, parts): (Vec<_>, Vec<_>) =
            (0..self.sessions).map(|_| mpsc::channel(WAITING)).unzip();
        let splitting = download::read(&context.bucket, record, move |reader| {
            let decoder = zstd::Decoder::new(reader).map_err(archive::ArchiveError::Read)?;
            archive::split(decoder, head_sender, senders, keep_search_path)
        });
        let loading = async {
            // Without a head, splitting failed, and its failure is the cause.
            let Ok(head) = head.await else {
                return Result::Ok(None);
            };
            self.pg_restore(&["--section=pre-data"], one_chunk(&head))
                .await?;
            let Some(checks) = checks else {
                self.rows(parts, &self.options).await?;
                return Ok(Some(head));
            };
            let postgres = &context.postgres;
            let dropped = DroppedChecks::drop(postgres, database, checks.tables).await?;
            let version = self.source.server_version;
            let with_search_path = restore_options_with_search_path(version, self.sessions);
            self.rows(parts, &with_search_path).await?;
            let own_name = checks.own_name;
            let added = dropped.add_again(postgres, database, &with_search_path, own_name);
            checks.exceptions.extend(added.await?);
            Ok(Some(head))
        };
        let (split, loaded) = tokio::join!(splitting, loading);
        // A failure to split the dump is the cause of a failure to load it.
        split?.or_fail(ExitCode::Verification, || cannot_decode(record))?;
        let head = loaded?;
        if let Some(head) = &head {
            self.indexes_and_constraints(head).await?;
        }
        Ok(head)
    }

    /// Adds entries that the server refused.
    fn add(&self, refused: Option<Refused>) {
        let Some(refused) = refused else { return };
        let mut all = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *all {
            Some(all) => all.entries.extend(refused.entries),
            None => *all = Some(refused),
        }
    }

    /// Loads the rows of each part in a session of its own.
    async fn rows(&self, parts: Vec<mpsc::Receiver<Bytes>>, options: &str) -> Result<()> {
        let mut loading = JoinSet::new();
        for part in parts {
            let pg_restore = self.source.context.postgres.tool("pg_restore");
            let pg_restore = self.with_arguments(pg_restore, &["--section=data"], options);
            let progress = self.source.context.progress.clone();
            loading.spawn(async move {
                let code = ExitCode::Restore;
                pg_restore.restore_from(part, &progress, code).await
            });
        }
        while let Some(loaded) = loading.join_next().await {
            self.add(loaded.or_fail(ExitCode::Internal, || "cannot run pg_restore")??);
        }
        Ok(())
    }

    async fn indexes_and_constraints(&self, head: &Bytes) -> Result<()> {
        let jobs = self.sessions.to_string();
        let progress = &self.source.context.progress;
        let shell = self.source.context.postgres.tool("sh");
        let shell = shell.args(["-c", FROM_UNNAMED_FILE, &jobs]);
        let pg_restore = self.with_arguments(shell, &["--section=post-data"], &self.options);
        let restoring = pg_restore.restore_from(one_chunk(head), progress, ExitCode::Restore);
        self.add(restoring.await?);
        Ok(())
    }

    async fn pg_restore(&self, arguments: &[&str], chunks: mpsc::Receiver<Bytes>) -> Result<()> {
        let progress = &self.source.context.progress;
        let pg_restore = self.source.context.postgres.tool("pg_restore");
        let pg_restore = self.with_arguments(pg_restore, arguments, &self.options);
        let restoring = pg_restore.restore_from(chunks, progress, ExitCode::Restore);
        self.add(restoring.await?);
        Ok(())
    }

    /// Adds the arguments of `pg_restore` to a program that runs it.
    fn with_arguments(&self, mut command: Program, arguments: &[&str], options: &str) -> Program {
        // Not in a single transaction: it would hold a lock for everything that it creates, and with two thousand
        // tables these are more than a server allows by default. If it fails, the whole database is dropped.
        // Not with --exit-on-error: what the server refuses is tried again later. From version 12 on, only a verbose
        // pg_restore names the entry of an error.
        command = command.args(["--format=custom", "--verbose"]);
        let Source {
            context, database, ..
        } = self.source;
        if context.settings.postgres.tablespaces == Tablespaces::Default {
            command = command.arg("--no-tablespaces");
        }
        command
            .args(arguments)
            .arg("-d")
            .arg(connection_string_with_options(database, options))
            .label("pg_restore")
    }
}

fn cannot_decode(record: &ObjectRecord) -> String {
    format!("cannot decode {}", record.key)
}

/// Returns a channel that contains only this chunk.
fn one_chunk(chunk: &Bytes) -> mpsc::Receiver<Bytes> {
    let (sender, chunks) = mpsc::channel(1);
    // The channel has room for one chunk.
    sender.try_send(chunk.clone()).ok();
    chunks
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;

    /// Runs the script with programs that replace `mktemp` and `pg_restore`, and returns what `pg_restore` printed.
    async fn output(directory: &Path, mktemp: &str) -> String {
        for (name, script) in [
            ("mktemp", mktemp),
            ("pg_restore", "echo \"$@\"; [ $# -gt 1 ] || cat"),
        ] {
            let path = directory.join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let path = format!("{}:/usr/bin:/bin", directory.display());
        let shell = Program::new("sh").args(["-c", FROM_UNNAMED_FILE, "2", "--section=post-data"]);
        let output = shell
            .env("PATH", path)
            .input("archive")
            .output(ExitCode::Restore);
        String::from_utf8(output.await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn several_processes_read_a_file_and_one_reads_the_stream_without_a_writable_directory() {
        let directory = tempfile::tempdir().unwrap();
        let file = format!(
            "f={}/archive; touch \"$f\"; echo \"$f\"",
            directory.path().display()
        );
        let expected = "--jobs=2 --section=post-data /proc/self/fd/3\n";
        assert_eq!(output(directory.path(), &file).await, expected);
        assert!(!directory.path().join("archive").exists());
        let nowhere = "echo 'mktemp: Read-only file system' >&2; exit 1";
        assert_eq!(
            output(directory.path(), nowhere).await,
            "--section=post-data\narchive"
        );
    }
}
