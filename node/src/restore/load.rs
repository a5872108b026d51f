//! Streams a dump from S3 into an empty database, by the server's own `pg_restore`.
//!
//! A small one goes through a single `pg_restore`. Of a larger one, the rows are dealt out to several as they stream
//! by, each with a session of its own, and the indexes and constraints are made side by side when all rows are there:
//! `pg_restore --jobs` would need the whole archive in a file first.

use std::io::Read as _;
use std::process::Stdio;

use bytes::Bytes;
use shared::manifest::ObjectRecord;
use shared::report::ExitCode;
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::agent::context::Context;
use crate::agent::failure::{OrFail as _, Result};
use crate::agent::process::Child;
use crate::postgres::archive;
use crate::postgres::{SESSION, connection_string};
use crate::s3::download;
use crate::s3::download::PieceReader;
use crate::settings::Tablespaces;

/// Decoded bytes that are handed to `pg_restore` at once.
const CHUNK: usize = 256 * 1024;
/// Decoded chunks that wait for it.
const WAITING: usize = 4;

/// Dumps of fewer bytes than this, uncompressed, take one `pg_restore` no longer than the start of several.
const WORTH_DEALING: u64 = 8 * 1024 * 1024;
/// The most sessions that restore one database.
const MOST_SESSIONS: usize = 4;

/// Memory of all the restore's sessions together in which they sort, in MB.
const SORT_MEMORY: usize = 256;
/// The first version whose sessions can do without zeroes in new WAL files.
const UNFILLED_WAL_SINCE: u32 = 120_000;

/// Runs `pg_restore` on an archive that it reads from a file which has no name any more, as `--jobs` wants it: an
/// archive on standard input cannot be read by several processes. Nothing stays behind, whenever it is killed.
const FROM_UNNAMED_FILE: &str = "file=$(mktemp) && exec 3<>\"$file\" && rm \"$file\" && cat >&3 && \
    exec pg_restore \"$@\" /proc/self/fd/3";

/// Restores a dump, which has so many bytes before compression, into an empty database.
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
    if plain_bytes < WORTH_DEALING || load.sessions < 2 {
        load.at_once(record).await
    } else {
        load.dealt_out(record).await
    }
}

/// Returns how many sessions work side by side on one database.
pub fn sessions() -> usize {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MOST_SESSIONS)
}

/// Returns what else each of so many sessions runs with, as libpq takes it. None of it outlives them.
pub fn options(server_version: u32, sessions: usize) -> String {
    // A database that is not live yet can lose nothing by a late write.
    let memory = SORT_MEMORY / sessions;
    let mut options = format!("-c synchronous_commit=off -c maintenance_work_mem={memory}MB");
    if server_version >= UNFILLED_WAL_SINCE {
        // A new node's server has no WAL files to use again, and fills each new one with zeroes, which its disk must
        // have before anybody's WAL is written. That WAL is then flushed as always.
        options += " -c wal_init_zero=off";
    }
    options
}

struct Load<'c> {
    context: &'c Context,
    database: &'c str,
    server_version: u32,
    sessions: usize,
}

impl Load<'_> {
    async fn at_once(&self, record: &ObjectRecord) -> Result<()> {
        let child = self.pg_restore(&[])?;
        let (downloading, reader) = download::stream(self.context, record);
        let (sender, chunks) = mpsc::channel(WAITING);
        let decoding = tokio::task::spawn_blocking(move || decode(reader, &sender));
        let feeding = child.input_from(chunks, &self.context.progress);
        let (downloaded, decoded, restored) = tokio::join!(downloading, decoding, feeding);
        // The first in this order that failed is the cause of the others' failing.
        downloaded?;
        decoded
            .or_fail(ExitCode::Internal, || "decode a dump")?
            .or_fail(ExitCode::Verification, || format!("decode {}", record.key))?;
        restored
    }

    async fn dealt_out(&self, record: &ObjectRecord) -> Result<()> {
        let (downloading, reader) = download::stream(self.context, record);
        let (head_sender, head) = oneshot::channel();
        let (players, hands): (Vec<_>, Vec<_>) =
            (0..self.sessions).map(|_| mpsc::channel(WAITING)).unzip();
        let dealing = tokio::task::spawn_blocking(move || {
            let decoder = zstd::Decoder::new(reader).map_err(archive::ArchiveError::Read)?;
            archive::deal(decoder, head_sender, players)
        });
        let loading = async {
            // Without a head, the archive is what is wrong.
            let Ok(head) = head.await else {
                return Ok(None);
            };
            let child = self.pg_restore(&["--section=pre-data"])?;
            self.feed(child, &head).await?;
            self.rows(hands).await?;
            Ok(Some(head))
        };
        let (downloaded, dealt, loaded) = tokio::join!(downloading, dealing, loading);
        // The first in this order that failed is the cause of the others' failing.
        downloaded?;
        dealt
            .or_fail(ExitCode::Internal, || "decode a dump")?
            .or_fail(ExitCode::Verification, || format!("decode {}", record.key))?;
        if let Some(head) = loaded? {
            let jobs = format!("--jobs={}", self.sessions);
            let mut command = self.context.postgres.tool("sh");
            command.args(["-c", FROM_UNNAMED_FILE, "sh"]);
            let child = self.start(command, &["--section=post-data", &jobs])?;
            self.feed(child, &head).await?;
        }
        Ok(())
    }

    /// Lets each session take its own rows, until all have theirs.
    async fn rows(&self, hands: Vec<mpsc::Receiver<Bytes>>) -> Result<()> {
        let mut feeding = JoinSet::new();
        for hand in hands {
            let child = self.pg_restore(&["--section=data"])?;
            let progress = self.context.progress.clone();
            feeding.spawn(async move { child.input_from(hand, &progress).await });
        }
        while let Some(fed) = feeding.join_next().await {
            fed.or_fail(ExitCode::Internal, || "feed pg_restore")??;
        }
        Ok(())
    }

    async fn feed(&self, child: Child, bytes: &Bytes) -> Result<()> {
        let (sender, chunks) = mpsc::channel(1);
        let bytes = bytes.clone();
        let sending = async move {
            sender.send(bytes).await.ok();
        };
        let feeding = child.input_from(chunks, &self.context.progress);
        let ((), fed) = tokio::join!(sending, feeding);
        fed
    }

    fn pg_restore(&self, arguments: &[&str]) -> Result<Child> {
        let command = self.context.postgres.tool("pg_restore");
        self.start(command, arguments)
    }

    fn start(&self, mut command: Command, arguments: &[&str]) -> Result<Child> {
        // Not in a single transaction: it would hold a lock for everything that it creates, more than a server's
        // default has room for where there are two thousand tables. What fails half-way is dropped as a whole.
        command.args(["--format=custom", "--exit-on-error"]);
        if self.context.settings.postgres.tablespaces == Tablespaces::Default {
            command.arg("--no-tablespaces");
        }
        let options = options(self.server_version, self.sessions);
        let mut connection = connection_string(self.database);
        connection.push(format!(" options='{SESSION} {options}'"));
        command
            .args(arguments)
            .arg("-d")
            .arg(connection)
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        Child::start("pg_restore", &mut command, ExitCode::Restore)
    }
}

/// Decodes to the end, or until nobody takes the bytes any more.
pub(crate) fn decode(reader: PieceReader, sender: &mpsc::Sender<Bytes>) -> std::io::Result<()> {
    let mut decoder = zstd::Decoder::new(reader)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = decoder.read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        if sender
            .blocking_send(Bytes::copy_from_slice(&chunk[..count]))
            .is_err()
        {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_always_fills_wal_is_not_asked_to_do_without() {
        let oldest = "-c synchronous_commit=off -c maintenance_work_mem=128MB";
        assert_eq!(options(110_022, 2), oldest);
        assert_eq!(
            options(120_000, 2),
            format!("{oldest} -c wal_init_zero=off")
        );
    }
}
