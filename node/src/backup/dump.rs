//! The Postgres objects of a backup: the globals and one dump for each database. Before a dump exists in S3, the
//! server's own `pg_restore` must have read it to its end.

use std::io::{self, BufReader, Read};

use bytes::Bytes;
use shared::exit_code::ExitCode;
use shared::manifest::ObjectRecord;
use tokio::sync::mpsc;

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::process::Stop;
use crate::chunks::{CHUNK, next_chunk};
use crate::context::Context;
use crate::objects::stream::{Check, Staged, WAITING, stage};
use crate::postgres::archive::{self, Archive, ArchiveError};
use crate::postgres::database::properties::DatabaseProperties;
use crate::postgres::quote::connection_string;

/// The last comment of a complete output of `pg_dumpall`.
const END_OF_GLOBALS: &[u8] = b"-- PostgreSQL database cluster dump complete";

/// How many bytes can follow it.
const AFTER_END_OF_GLOBALS: usize = 1024;

/// How often `pg_dump` is tried if objects are dropped meanwhile.
const DUMP_TRIES: u32 = 3;
/// Parts of the server's messages about an object that was dropped.
const DROPPED_OBJECTS: [&str; 4] = [
    "\" does not exist",
    "could not open relation with OID",
    "cache lookup failed for",
    "could not find tuple for",
];

/// The dump of one database in S3.
#[derive(Debug)]
pub(crate) struct Dump {
    /// The object.
    pub(crate) object: ObjectRecord,
    /// Its relations and rows.
    pub(crate) archive: Archive,
    /// Its bytes before compression.
    pub(crate) bytes: u64,
}

/// Uploads the globals: roles, their memberships and tablespaces.
pub(crate) async fn globals(context: &Context, key: String) -> Result<ObjectRecord> {
    let pg_dumpall = context
        .postgres
        .tool("pg_dumpall")
        // Independent of the encoding of the database that pg_dumpall connects to.
        .args(["--globals-only", "--no-password", "--encoding=UTF8"]);
    let source = async |chunks| {
        let progress = &context.progress;
        pg_dumpall.stdout_to(chunks, progress, ExitCode::Dump).await
    };
    let staged = stage(&context.bucket, key, source, Box::new(check_globals)).await;
    let (staged, _, ()) = staged?;
    staged.complete().await
}

/// Checks that the globals are complete.
fn check_globals(decoded: &mut dyn Read) -> std::result::Result<(), Stop> {
    let mut tail = Vec::new();
    let mut buffer = vec![0; CHUNK];
    let failed = || "cannot decode the globals";
    while let Some(chunk) =
        next_chunk(decoded, &mut buffer).or_fail(ExitCode::Verification, failed)?
    {
        tail.extend_from_slice(chunk);
        let surplus = tail.len().saturating_sub(AFTER_END_OF_GLOBALS);
        tail.drain(..surplus);
    }
    if memchr::memmem::find(&tail, END_OF_GLOBALS).is_some() {
        return Ok(());
    }
    let message = "the globals are truncated: the last comment of pg_dumpall is missing";
    Err(Failure::new(ExitCode::Verification, message).into())
}

/// Uploads the dump of one database. The object exists only if `pg_dump` succeeded, the uploaded bytes contain a block
/// for every entry with data, and `pg_restore` read them to their end.
///
/// `pg_dump` lists the tables before it locks them. If one is dropped in between, `pg_dump` fails, and is run again.
pub(crate) async fn database(
    context: &Context,
    key: &str,
    database: &DatabaseProperties,
) -> Result<Dump> {
    let mut tries = 1;
    loop {
        match try_database(context, key.to_owned(), database).await {
            Err(failure) if tries < DUMP_TRIES && is_of_dropped_object(&failure) => {
                let reason = failure.chain();
                tracing::warn!(
                    reason,
                    "an object was dropped during the dump; dumping again"
                );
                tries += 1;
            }
            result => return result,
        }
    }
}

/// Returns whether `pg_dump` failed because an object was dropped after it was listed.
fn is_of_dropped_object(failure: &Failure) -> bool {
    let chain = failure.chain();
    let has = |text: &&str| chain.contains(*text);
    failure.code == ExitCode::Dump && DROPPED_OBJECTS.iter().any(has)
}

async fn try_database(
    context: &Context,
    key: String,
    database: &DatabaseProperties,
) -> Result<Dump> {
    let (postgres, progress) = (&context.postgres, &context.progress);
    let pg_dump = postgres
        .tool("pg_dump")
        .args(["-Fc", "-Z0", "--no-password", "--lock-wait-timeout=60s"])
        // The database's own encoding, so that nothing is converted, even if the database sets `client_encoding`.
        .arg(format!("--encoding={}", database.encoding))
        .arg("-d")
        .arg(connection_string(&database.name));
    let pg_restore = postgres.tool("pg_restore").args(["-f", "/dev/null"]);

    let (decoded, to_restore) = mpsc::channel(WAITING);
    let check: Check<Archive> = Box::new(move |plain| check_dump(plain, decoded));
    let source = async |chunks| pg_dump.stdout_to(chunks, progress, ExitCode::Dump).await;
    let (staged, restored) = tokio::join!(
        stage(&context.bucket, key, source, check),
        pg_restore.stdin_from(to_restore, progress, ExitCode::Verification)
    );
    let (staged, bytes, archive) = accepted_by_both(staged, restored).await?;
    let object = staged.complete().await?;
    Ok(Dump {
        object,
        archive,
        bytes,
    })
}

/// Returns the staged dump if `pg_restore` accepted it too; otherwise aborts it.
async fn accepted_by_both<S, T>(
    staged: std::result::Result<(Staged, S, T), Stop>,
    restored: Result<()>,
) -> Result<(Staged, S, T)> {
    match (staged, restored) {
        (Ok(staged), Ok(())) => Ok(staged),
        (Ok((staged, ..)), Err(failure)) => {
            staged.abort().await;
            Err(failure)
        }
        // The failure of a stage also stops pg_restore. Without one, pg_restore stopped the stages.
        (Err(Stop::Failed(failure)), _) | (Err(Stop::Downstream), Err(failure)) => Err(failure),
        (Err(stop), Ok(())) => Err(stop.into()),
    }
}

/// Reads a dump to its end, and sends the same bytes to `pg_restore`.
fn check_dump(
    plain: &mut dyn Read,
    consumer: mpsc::Sender<Bytes>,
) -> std::result::Result<Archive, Stop> {
    let tee = Tee { plain, consumer };
    match archive::read(&mut BufReader::with_capacity(CHUNK, tee)) {
        Ok(archive) => Ok(archive),
        Err(ArchiveError::Read(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Err(Stop::Downstream)
        }
        Err(error) => {
            let failure = Failure::caused(ExitCode::Verification, error, "cannot verify the dump");
            Err(failure.into())
        }
    }
}

/// Sends a copy of everything that is read.
struct Tee<'r> {
    plain: &'r mut dyn Read,
    consumer: mpsc::Sender<Bytes>,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.plain.read(buffer)?;
        if length > 0 {
            let sent = self
                .consumer
                .blocking_send(Bytes::copy_from_slice(&buffer[..length]));
            sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(length)
    }
}
