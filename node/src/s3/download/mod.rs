//! Downloads the objects of a backup, by version. Several ranges are fetched at a time, and a broken connection is
//! resumed. A download succeeds only if the object has the recorded size and SHA-256.

mod ranges;

use bytes::Bytes;
use futures_util::stream::{StreamExt as _, TryStreamExt as _, iter};
use shared::Error;
use shared::aws::s3;
use shared::checksum::{ObjectDigest, digests};
use shared::command::Candidate;
use shared::exit_code::ExitCode;
use shared::id::ApplicationName;
use shared::layout;
use shared::manifest::{Index, MOST_INDEX_BYTES, ObjectRecord, is_newer_schema};
use tokio::sync::mpsc;

use self::ranges::Ranges;
use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::chunks::ChunkReader;
use crate::s3::Bucket;

/// Objects that are checked at the same time, before any of them is downloaded.
const CHECKS_AT_ONCE: usize = 8;
/// Chunks of a download that wait for their reader. A chunk has at most 64 KiB, as a rule.
const READ_AHEAD: usize = 16;

/// Downloads the index of a candidate, and checks it.
pub(crate) async fn index(
    bucket: &Bucket,
    application: &ApplicationName,
    candidate: &Candidate,
) -> Result<Index> {
    let (backup, run) = (&candidate.backup_id, &candidate.run_id);
    let key = layout::object(application, backup, run, layout::INDEX);
    let version = candidate.index_version.as_deref();
    let bytes = s3::read(
        &bucket.client,
        &bucket.name,
        &key,
        version,
        MOST_INDEX_BYTES,
    )
    .await
    .map_err(|error| unreadable(&key, error))?;
    bucket.progress.touch();
    let found = digests(&bytes).sha256;
    if found != candidate.index_sha256 {
        let message = format!(
            "{key} was changed after the commit: its SHA-256 is {found}, but {} was committed; restore another backup",
            candidate.index_sha256
        );
        return Err(Failure::new(ExitCode::Verification, message));
    }
    Index::parse(&bytes, application, backup, run).map_err(|error| {
        // An older backup could be restored, but its data are older than those that a newer Rekindle can restore.
        let code = if is_newer_schema(&error) {
            ExitCode::NoUsableBackup
        } else {
            ExitCode::Verification
        };
        Failure::new(code, error.chain())
    })
}

/// Checks that every object of a backup is in S3 as its index records it. No object is downloaded, so a missing,
/// truncated or replaced object is found before the restore changes anything.
pub(crate) async fn check_objects(bucket: &Bucket, index: &Index) -> Result<()> {
    let checks = iter(&index.objects).map(|record| async move {
        check_object(bucket, record).await?;
        bucket.progress.touch();
        Ok(())
    });
    // In the order of the index, so that the same damage always gives the same failure.
    checks.buffered(CHECKS_AT_ONCE).try_collect().await
}

/// Checks that an object is in S3 with the recorded size and CRC-64.
pub(crate) async fn check_object(bucket: &Bucket, record: &ObjectRecord) -> Result<()> {
    let (key, version) = (&record.key, record.version_id.as_deref());
    // If S3 denies access, the object is missing. Access itself works: the index beside it was read.
    let head = bucket
        .head(key, version)
        .await
        .map_err(|error| unreadable(key, error))?
        .ok_or_else(|| Failure::new(ExitCode::Verification, missing(key)))?;
    if head.size == record.size && head.crc64.as_ref() == Some(&record.crc64) {
        return Ok(());
    }
    let crc64 = head.crc64.map_or_else(
        || "no CRC-64".to_owned(),
        |crc64| format!("the CRC-64 {crc64}"),
    );
    let message = format!(
        "{key} was changed after the commit: it has {} bytes and {crc64}, but {} bytes and the CRC-64 {} were committed; \
         restore another backup",
        head.size, record.size, record.crc64
    );
    Err(Failure::new(ExitCode::Verification, message))
}

/// Downloads an object of at most `most` bytes into memory.
pub(crate) async fn whole(bucket: &Bucket, record: &ObjectRecord, most: u64) -> Result<Vec<u8>> {
    if record.size > most {
        let message = format!(
            "cannot read {}: it has {} bytes, and the limit is {most}; restore another backup",
            record.key, record.size
        );
        return Err(Failure::new(ExitCode::Verification, message));
    }
    let (sender, mut receiver) = mpsc::channel::<Bytes>(READ_AHEAD);
    let collecting = async {
        let mut all = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            all.extend_from_slice(&chunk);
        }
        all
    };
    let (sent, all) = tokio::join!(send(bucket, record, sender), collecting);
    sent.map(|()| all)
}

/// Downloads an object while `read` reads it on a thread where blocking is allowed. Returns the result of `read`, which
/// must not trust the bytes: their SHA-256 is checked at their end. If the object is not the committed one, fails with
/// that cause, whatever the result of `read` is.
pub(crate) async fn read<T: Send + 'static>(
    bucket: &Bucket,
    record: &ObjectRecord,
    read: impl FnOnce(ChunkReader) -> T + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let reader = ChunkReader::of_size(receiver, record.size);
    let reading = tokio::task::spawn_blocking(move || read(reader));
    let (sent, read) = tokio::join!(send(bucket, record, sender), reading);
    sent?;
    read.or_fail(ExitCode::Internal, || format!("cannot read {}", record.key))
}

/// Sends an object's bytes in order, and checks them. If the receiver is dropped, the download continues: a damaged
/// object often makes its reader fail, and only the digest of all bytes proves the damage.
async fn send(bucket: &Bucket, record: &ObjectRecord, sender: mpsc::Sender<Bytes>) -> Result<()> {
    let mut digest = ObjectDigest::new();
    let mut ranges = Ranges::new(bucket, record);
    while let Some(range) = ranges.next().await? {
        for chunk in range {
            digest.update(&chunk);
            sender.send(chunk).await.ok();
        }
    }
    let found = digest.finish();
    if found.size == record.size && found.sha256 == record.sha256 {
        return Ok(());
    }
    let message = format!(
        "{} was changed after the commit: it has {} bytes and the SHA-256 {}, but {} bytes and the SHA-256 {} were \
         committed; restore another backup",
        record.key, found.size, found.sha256, record.size, record.sha256
    );
    Err(Failure::new(ExitCode::Verification, message))
}

/// Returns the failure of a read. If the object is missing, this backup is damaged and an older one may help
/// (`Verification`). If the bucket cannot be read at all, an older backup would lose data for nothing (`Download`).
fn unreadable(key: &str, error: Error) -> Failure {
    // S3 answers with an invalid argument if a version id never existed, and with an invalid range if the object is
    // shorter than recorded.
    let code = error.aws_code();
    if s3::is_missing(&error) || matches!(code, Some("InvalidRange" | "InvalidArgument")) {
        return Failure::caused(ExitCode::Verification, error, missing(key));
    }
    let code = match error {
        Error::Contract { .. } => ExitCode::Verification,
        _ => ExitCode::Download,
    };
    Failure::caused(code, error, format!("cannot read {key}"))
}

fn missing(key: &str) -> String {
    format!("{key} is not in the bucket as it was committed; restore another backup")
}
