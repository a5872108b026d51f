//! The Postgres objects of a backup: globals, and one dump per database, each decoded to its end by the server's
//! own `pg_restore` before it exists.

use std::io::{self, BufReader, Read};
use std::process::Stdio;

use bytes::Bytes;
use shared::manifest::ObjectRecord;
use shared::report::ExitCode;
use tokio::sync::mpsc;

use crate::agent::context::Context;
use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::process::{Child, Stop};
use crate::backup::stream::{Proof, Staged, WAITING, stage};
use crate::postgres::archive;
use crate::postgres::archive::{Archive, ArchiveError};
use crate::postgres::connection_string;
use crate::postgres::database::DatabaseProperties;

/// How much of a dump is decoded at once, in bytes.
const CHUNK: usize = 256 * 1024;

/// What `pg_dumpall` writes when it has written everything.
const END_OF_GLOBALS: &[u8] = b"-- PostgreSQL database cluster dump complete";

/// How much may follow that, in bytes.
const AFTER_END_OF_GLOBALS: usize = 1024;

/// A dump in S3.
#[derive(Debug)]
pub(crate) struct Dump {
    /// The object.
    pub(crate) object: ObjectRecord,
    /// What is in it.
    pub(crate) archive: Archive,
    /// Its bytes before compression.
    pub(crate) bytes: u64,
}

/// Saves roles, their memberships and tablespaces.
pub(crate) async fn globals(context: &Context, key: String) -> Result<ObjectRecord> {
    let mut command = context.postgres.tool("pg_dumpall");
    // Whatever encoding the database has that it happens to ask.
    command.args(["--globals-only", "--no-password", "--encoding=UTF8"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let child = Child::start("pg_dumpall", &mut command, ExitCode::Dump)?;
    let source = async |chunks| child.output_to(chunks, &context.progress).await;
    let staged = stage(context, key, source, Box::new(whole_globals)).await;
    let (staged, _, ()) = staged.map_err(into_failure)?;
    staged.complete().await
}

fn whole_globals(decoded: &mut dyn Read) -> std::result::Result<(), Stop> {
    let mut tail = Vec::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = decoded
            .read(&mut chunk)
            .or_fail(ExitCode::Verification, || "decode the globals")?;
        if length == 0 {
            break;
        }
        tail.extend_from_slice(&chunk[..length]);
        let surplus = tail.len().saturating_sub(AFTER_END_OF_GLOBALS);
        tail.drain(..surplus);
    }
    if memchr::memmem::find(&tail, END_OF_GLOBALS).is_some() {
        return Ok(());
    }
    let message = "the globals do not end as pg_dumpall ends them";
    Err(Failure::new(ExitCode::Verification, message).into())
}

/// Dumps one database. The object exists only if `pg_dump` ended with success, every promised block was found in
/// what was uploaded, and `pg_restore` read it to its end.
pub(crate) async fn database(
    context: &Context,
    key: String,
    database: &DatabaseProperties,
) -> Result<Dump> {
    let mut command = context.postgres.tool("pg_dump");
    command.args(["-Fc", "-Z0", "--no-password", "--lock-wait-timeout=60s"]);
    // Its own, so that nothing is converted, whatever the client's encoding is set to in the database.
    command.arg(format!("--encoding={}", database.encoding));
    command.arg("-d").arg(connection_string(&database.name));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let pg_dump = Child::start("pg_dump", &mut command, ExitCode::Dump)?;

    let mut command = context.postgres.tool("pg_restore");
    command.args(["-f", "/dev/null"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let pg_restore = Child::start("pg_restore", &mut command, ExitCode::Verification)?;

    let (decoded, to_restore) = mpsc::channel(WAITING);
    let proof: Proof<Archive> = Box::new(move |plain| whole_dump(plain, decoded));
    let source = async |chunks| pg_dump.output_to(chunks, &context.progress).await;
    let (staged, restored) = tokio::join!(
        stage(context, key, source, proof),
        pg_restore.input_from(to_restore, &context.progress)
    );
    let (staged, bytes, archive) = both(staged, restored).await?;
    let object = staged.complete().await?;
    Ok(Dump {
        object,
        archive,
        bytes,
    })
}

/// Gives a staged dump up unless `pg_restore` accepted it too.
async fn both<S, T>(
    staged: std::result::Result<(Staged, S, T), Stop>,
    restored: Result<()>,
) -> Result<(Staged, S, T)> {
    match (staged, restored) {
        (Ok(staged), Ok(())) => Ok(staged),
        (Ok((staged, ..)), Err(failure)) => {
            staged.abort().await;
            Err(failure)
        }
        // What stopped the stages is what stopped pg_restore, unless that stopped first.
        (Err(Stop::Failed(failure)), _) | (Err(Stop::Downstream), Err(failure)) => Err(failure),
        (Err(stop), Ok(())) => Err(into_failure(stop)),
    }
}

/// Reads a dump to its end, and lets `pg_restore` read the same bytes.
fn whole_dump(
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
            let failed: Result<()> =
                Err(error).or_fail(ExitCode::Verification, || "check the dump");
            failed.map_or_else(|failure| Err(failure.into()), |()| Err(Stop::Downstream))
        }
    }
}

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

/// A stage never stops because of another without that one's failure; if it did, it would be a defect.
pub(crate) fn into_failure(stop: Stop) -> Failure {
    match stop {
        Stop::Failed(failure) => failure,
        Stop::Downstream => Failure::new(
            ExitCode::Internal,
            "a stage of the stream ended without a cause",
        ),
    }
}
