//! Loads a dump from S3 into an empty database, as a stream and with the server's own `pg_restore`.
//!
//! A small dump goes through one `pg_restore`. A larger one is split while it is read: several `pg_restore` load its
//! rows, each in its own session. When all rows are loaded, another one creates indexes and constraints with `--jobs`.
//! For the rows, `--jobs` would need the whole archive in a file first.

use bytes::Bytes;
use shared::exit_code::ExitCode;
use shared::manifest::ObjectRecord;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::agent::failure::{OrFail as _, Result};
use crate::agent::process::Program;
use crate::context::Context;
use crate::objects::stream::decode;
use crate::postgres::archive;
use crate::postgres::quote::connection_string_with_options;
use crate::postgres::session::restore_options;
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

/// Loads a dump into an empty database. `plain_bytes` is its size before compression.
pub(crate) async fn dump(
    context: &Context,
    record: &ObjectRecord,
    plain_bytes: u64,
    database: &str,
    server_version: u32,
) -> Result<()> {
    let load = Load {
        context,
        database,
        server_version,
        sessions: sessions(),
    };
    if plain_bytes < WORTH_SPLITTING || load.sessions < 2 {
        load.unsplit(record).await
    } else {
        load.split(record).await
    }
}

/// Returns the number of sessions that restore one database side by side.
pub fn sessions() -> usize {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MOST_SESSIONS)
}

struct Load<'c> {
    context: &'c Context,
    database: &'c str,
    server_version: u32,
    sessions: usize,
}

impl Load<'_> {
    /// Loads the dump with one `pg_restore`.
    async fn unsplit(&self, record: &ObjectRecord) -> Result<()> {
        let (sender, chunks) = mpsc::channel(WAITING);
        let decoding = download::read(&self.context.bucket, record, move |reader| {
            decode(reader, &sender)
        });
        let loading = self.pg_restore(&[], chunks);
        let (decoded, loaded) = tokio::join!(decoding, loading);
        // A failure to decode the dump is the cause of a failure to load it.
        decoded?.or_fail(ExitCode::Verification, || {
            format!("cannot decode {}", record.key)
        })?;
        loaded
    }

    /// Loads the definitions first, then the rows with several `pg_restore`, then the indexes and constraints.
    async fn split(&self, record: &ObjectRecord) -> Result<()> {
        let (head_sender, head) = oneshot::channel();
        let (senders, parts): (Vec<_>, Vec<_>) =
            (0..self.sessions).map(|_| mpsc::channel(WAITING)).unzip();
        let splitting = download::read(&self.context.bucket, record, move |reader| {
            let decoder = zstd::Decoder::new(reader).map_err(archive::ArchiveError::Read)?;
            archive::split(decoder, head_sender, senders)
        });
        let loading = async {
            // Without a head, splitting failed, and its failure is the cause.
            let Ok(head) = head.await else {
                return Result::Ok(None);
            };
            self.pg_restore(&["--section=pre-data"], one_chunk(&head))
                .await?;
            self.rows(parts).await?;
            Ok(Some(head))
        };
        let (split, loaded) = tokio::join!(splitting, loading);
        // A failure to split the dump is the cause of a failure to load it.
        split?.or_fail(ExitCode::Verification, || {
            format!("cannot decode {}", record.key)
        })?;
        if let Some(head) = loaded? {
            self.indexes_and_constraints(&head).await?;
        }
        Ok(())
    }

    /// Loads the rows of each part in a session of its own.
    async fn rows(&self, parts: Vec<mpsc::Receiver<Bytes>>) -> Result<()> {
        let mut loading = JoinSet::new();
        for part in parts {
            let pg_restore = self.context.postgres.tool("pg_restore");
            let pg_restore = self.with_arguments(pg_restore, &["--section=data"]);
            let progress = self.context.progress.clone();
            loading.spawn(async move {
                let code = ExitCode::Restore;
                pg_restore.stdin_from(part, &progress, code).await
            });
        }
        while let Some(loaded) = loading.join_next().await {
            loaded.or_fail(ExitCode::Internal, || "cannot run pg_restore")??;
        }
        Ok(())
    }

    async fn indexes_and_constraints(&self, head: &Bytes) -> Result<()> {
        let jobs = self.sessions.to_string();
        let progress = &self.context.progress;
        let shell = self.context.postgres.tool("sh");
        let shell = shell.args(["-c", FROM_UNNAMED_FILE, &jobs]);
        self.with_arguments(shell, &["--section=post-data"])
            .stdin_from(one_chunk(head), progress, ExitCode::Restore)
            .await
    }

    async fn pg_restore(&self, arguments: &[&str], chunks: mpsc::Receiver<Bytes>) -> Result<()> {
        let progress = &self.context.progress;
        self.with_arguments(self.context.postgres.tool("pg_restore"), arguments)
            .stdin_from(chunks, progress, ExitCode::Restore)
            .await
    }

    /// Adds the arguments of `pg_restore` to a program that runs it.
    fn with_arguments(&self, mut command: Program, arguments: &[&str]) -> Program {
        // Not in a single transaction: it would hold a lock for everything that it creates, and with two thousand
        // tables these are more than a server allows by default. If it fails, the whole database is dropped.
        // From version 12 on, only a verbose pg_restore names the object of an error.
        command = command.args(["--format=custom", "--exit-on-error", "--verbose"]);
        if self.context.settings.postgres.tablespaces == Tablespaces::Default {
            command = command.arg("--no-tablespaces");
        }
        let options = restore_options(self.server_version, self.sessions);
        command
            .args(arguments)
            .arg("-d")
            .arg(connection_string_with_options(self.database, &options))
            .label("pg_restore")
    }
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
