//! Reads a backup's objects from S3: by version, several ranges at a time, each resumed where its connection breaks, and
//! hashed in order. A download succeeds only if it had the recorded size and SHA-256.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use bytes::Bytes;
use futures_util::stream::{StreamExt as _, TryStreamExt as _, iter};
use shared::Error;
use shared::aws::{failed, s3};
use shared::checksum::{ObjectDigest, digests};
use shared::command::Candidate;
use shared::layout;
use shared::manifest::{Index, MOST_INDEX_BYTES, ObjectRecord, is_newer_schema};
use shared::report::ExitCode;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::agent::context::Context;
use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::watchdog::Progress;

/// Times that a broken download is resumed without having brought a single byte.
const FRUITLESS_RESUMPTIONS: u32 = 4;
/// The pause before the first resumption; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Bytes that one request asks for.
const RANGE: u64 = 2 * 1024 * 1024;
/// Ranges that are on their way, or here before their turn: one connection to S3 brings some 100 MB/s, and nothing until
/// its answer has come all the way. Many small ones hide that way better than few large ones of as many bytes.
const RANGES_AT_ONCE: usize = 16;
/// Objects that are looked at side by side, before any is read.
const CHECKS_AT_ONCE: usize = 8;
/// Pieces of a range that are handed on ahead of their use: some 16 of at most 64 KiB.
const READ_AHEAD: usize = 16;

/// Reads and checks the index of a candidate.
pub(crate) async fn index(context: &Context, candidate: &Candidate) -> Result<Index> {
    let application = &context.settings.application;
    let (backup, run) = (&candidate.backup_id, &candidate.run_id);
    let key = layout::object(application, backup, run, layout::INDEX);
    let version = candidate.index_version.as_deref();
    let bytes = s3::read(
        &context.s3,
        &context.settings.bucket,
        &key,
        version,
        MOST_INDEX_BYTES,
    )
    .await
    .map_err(|error| refused(&key, error))?;
    context.progress.touch();
    let found = digests(&bytes).sha256;
    if found != candidate.index_sha256 {
        let message = format!(
            "{key} has the SHA-256 {found}, but {} was committed: it was changed since; restore another backup",
            candidate.index_sha256
        );
        return Err(Failure::new(ExitCode::Verification, message));
    }
    Index::parse(&bytes, application, backup, run).map_err(|error| {
        // An older backup could be restored, but would silently lose what a newer Rekindle can still read.
        let code = if is_newer_schema(&error) {
            ExitCode::NoUsableBackup
        } else {
            ExitCode::Verification
        };
        Failure::new(code, error.chain())
    })
}

/// Checks that every object of a backup is in S3 as its index says, without reading any: a missing, truncated
/// or swapped one is found before anything is changed.
pub(crate) async fn check_objects(context: &Context, index: &Index) -> Result<()> {
    let checks = iter(&index.objects).map(|record| async move {
        check_object(context, record).await?;
        context.progress.touch();
        Ok(())
    });
    // The first of the index that is not as recorded is told, whichever answer comes first.
    checks.buffered(CHECKS_AT_ONCE).try_collect().await
}

/// Checks that one object is in S3 as it was recorded.
pub(crate) async fn check_object(context: &Context, record: &ObjectRecord) -> Result<()> {
    let (key, version) = (&record.key, record.version_id.as_deref());
    let head = s3::head(&context.s3, &context.settings.bucket, key, version)
        .await
        // The index beside it could be read, so access is not what is wrong: to a node, which may not list, S3
        // says "denied" of an object that is not there.
        .or_else(|error| match error.aws_code() {
            Some("AccessDenied") => Ok(None),
            _ => Err(refused(key, error)),
        })?
        .ok_or_else(|| Failure::new(ExitCode::Verification, gone(key)))?;
    if head.size == record.size && head.crc64.as_ref() == Some(&record.crc64) {
        return Ok(());
    }
    let crc64 = head
        .crc64
        .map_or_else(|| "none".to_owned(), |crc64| crc64.to_string());
    let message = format!(
        "{key} has {} bytes and the CRC-64 {crc64}, but {} bytes and {} were committed: it was changed since; \
         restore another backup",
        head.size, record.size, record.crc64
    );
    Err(Failure::new(ExitCode::Verification, message))
}

/// Reads an object of at most `most` bytes into memory, and checks it.
pub(crate) async fn whole(context: &Context, record: &ObjectRecord, most: u64) -> Result<Vec<u8>> {
    if record.size > most {
        let message = format!(
            "{} has {} bytes, at most {most} are read",
            record.key, record.size
        );
        return Err(Failure::new(ExitCode::Verification, message));
    }
    let (sender, mut receiver) = mpsc::channel::<Bytes>(READ_AHEAD);
    let collecting = async {
        let mut all = Vec::new();
        while let Some(piece) = receiver.recv().await {
            all.extend_from_slice(&piece);
        }
        all
    };
    let (sent, all) = tokio::join!(send(context, record, sender), collecting);
    sent.map(|()| all)
}

/// Starts reading an object. The returned future must be driven while the reader is read on a thread where
/// blocking is allowed; the bytes count only once it has returned without an error.
pub(crate) fn stream<'a>(
    context: &'a Context,
    record: &'a ObjectRecord,
) -> (impl Future<Output = Result<()>> + use<'a>, PieceReader) {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let reader = PieceReader {
        receiver,
        piece: Bytes::new(),
        missing: record.size,
    };
    (send(context, record, sender), reader)
}

/// The bytes of a running download. It ends early with an error, never with what looks like the end.
pub(crate) struct PieceReader {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
    missing: u64,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => {
                    self.missing = self.missing.saturating_sub(piece.len() as u64);
                    self.piece = piece;
                }
                None if self.missing == 0 => return Ok(0),
                None => return Err(io::Error::other("the download ended early")),
            }
        }
        let count = self.piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// Sends an object's bytes in order, and then checks them. A receiver that is gone does not end the download:
/// whether the object is intact matters even where its reader has had enough.
async fn send(context: &Context, record: &ObjectRecord, sender: mpsc::Sender<Bytes>) -> Result<()> {
    let mut digest = ObjectDigest::new();
    let mut ranges = Ranges::new(context, record);
    while let Some(range) = ranges.next().await? {
        for piece in range {
            digest.update(&piece);
            sender.send(piece).await.ok();
        }
    }
    let found = digest.finish();
    if found.size == record.size && found.sha256 == record.sha256 {
        return Ok(());
    }
    let message = format!(
        "{} has {} bytes and the SHA-256 {}, but {} bytes and {} were committed: it was changed since; restore \
         another backup",
        record.key, found.size, found.sha256, record.size, record.sha256
    );
    Err(Failure::new(ExitCode::Verification, message))
}

/// An object's ranges, fetched side by side and returned in order.
struct Ranges {
    source: Arc<Source>,
    size: u64,
    /// Where the next range to be asked for begins.
    asked: u64,
    /// Where the next range to be returned begins.
    wanted: u64,
    /// What came before its turn.
    early: BTreeMap<u64, Vec<Bytes>>,
    fetching: JoinSet<Result<(u64, Vec<Bytes>)>>,
}

impl Ranges {
    fn new(context: &Context, record: &ObjectRecord) -> Self {
        let source = Source {
            s3: context.s3.clone(),
            bucket: context.settings.bucket.clone(),
            key: record.key.clone(),
            version: record.version_id.clone(),
            progress: context.progress.clone(),
        };
        Self {
            source: Arc::new(source),
            size: record.size,
            asked: 0,
            wanted: 0,
            early: BTreeMap::new(),
            fetching: JoinSet::new(),
        }
    }

    /// Waits for the next range; none after the last.
    async fn next(&mut self) -> Result<Option<Vec<Bytes>>> {
        loop {
            while self.asked < self.size && self.fetching.len() + self.early.len() < RANGES_AT_ONCE
            {
                let end = self.size.min(self.asked + RANGE);
                let source = Arc::clone(&self.source);
                self.fetching.spawn(source.range(self.asked, end));
                self.asked = end;
            }
            if let Some(range) = self.early.remove(&self.wanted) {
                self.wanted = self.size.min(self.wanted + RANGE);
                return Ok(Some(range));
            }
            match self.fetching.join_next().await {
                Some(fetched) => {
                    let (start, range) =
                        fetched.or_fail(ExitCode::Internal, || "fetch a range of an object")??;
                    self.early.insert(start, range);
                }
                None => return Ok(None),
            }
        }
    }
}

/// An object, and the way to it.
struct Source {
    s3: Client,
    bucket: String,
    key: String,
    version: Option<String>,
    progress: Progress,
}

impl Source {
    /// Fetches the bytes from `start` up to `end`; a broken connection goes on where it broke.
    async fn range(self: Arc<Self>, start: u64, end: u64) -> Result<(u64, Vec<Bytes>)> {
        let mut pieces = Vec::new();
        let mut offset = start;
        let mut fruitless = 0;
        while offset < end {
            let before = offset;
            let problem = match self.get(offset, end).await? {
                Some(mut output) => loop {
                    match output.body.next().await {
                        Some(Ok(piece)) => {
                            offset += piece.len() as u64;
                            self.progress.touch();
                            pieces.push(piece);
                        }
                        Some(Err(error)) => break error.to_string(),
                        None => break "the connection ended".to_owned(),
                    }
                },
                None => "S3 did not answer".to_owned(),
            };
            if offset >= end {
                break;
            }
            fruitless = if offset > before { 0 } else { fruitless + 1 };
            if fruitless > FRUITLESS_RESUMPTIONS {
                let message = format!("{} ended after {offset} bytes: {problem}", self.key);
                return Err(Failure::new(ExitCode::Download, message));
            }
            tracing::warn!(key = self.key, offset, problem, "resuming a download");
            sleep(FIRST_PAUSE * 2_u32.pow(fruitless)).await;
        }
        Ok((start, pieces))
    }

    /// Asks for the bytes from `offset` up to `end`; none where S3 could not be reached after the client's own retries.
    async fn get(&self, offset: u64, end: u64) -> Result<Option<GetObjectOutput>> {
        let answer = self
            .s3
            .get_object()
            .bucket(&self.bucket)
            .key(&self.key)
            .set_version_id(self.version.clone())
            .range(format!("bytes={offset}-{}", end - 1))
            .send()
            .await;
        match answer.map_err(failed("s3:GetObject")) {
            Ok(output) => match s3::of_s3("s3:GetObject", output.e_tag()) {
                Ok(()) => Ok(Some(output)),
                // Its bytes are not the object's, and prove nothing about them.
                Err(error) => {
                    let problem = error.chain();
                    tracing::warn!(key = self.key, problem, "S3 did not answer");
                    Ok(None)
                }
            },
            Err(error) if error.retryable() => {
                tracing::warn!(key = self.key, problem = error.chain(), "S3 did not answer");
                Ok(None)
            }
            Err(error) => Err(refused(&self.key, error)),
        }
    }
}

/// Tells an object that is gone, which is this backup's own fault, from a bucket that cannot be read at all: no
/// older backup helps against that, and falling back would lose data for nothing.
fn refused(key: &str, error: Error) -> Failure {
    // A version id that never was is an invalid argument, and a range behind the end is one of a shorter object.
    let word = error.aws_code();
    if s3::is_missing(&error) || matches!(word, Some("InvalidRange" | "InvalidArgument")) {
        return Failure {
            code: ExitCode::Verification,
            cause: anyhow::Error::new(error).context(gone(key)),
        };
    }
    let code = match error {
        Error::Contract { .. } => ExitCode::Verification,
        _ => ExitCode::Download,
    };
    Failure {
        code,
        cause: anyhow::Error::new(error).context(format!("read {key}")),
    }
}

fn gone(key: &str) -> String {
    format!("{key} is not in the bucket as it was committed; restore another backup")
}
