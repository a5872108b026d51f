//! Writes the exceptions of a restore into an object beside its backup.

use shared::aws::s3;
use shared::checksum::digests;
use shared::exit_code::ExitCode;
use shared::id::BackupId;
use shared::layout;
use shared::operation::Operation;
use shared::report::exceptions::{Exception, ExceptionsRecord, ReportedExceptions};
use time::OffsetDateTime;

use crate::agent::failure::{OrFail as _, Result};
use crate::context::Context;
use crate::s3::upload::Upload;

/// The largest object with exceptions that is read, in bytes.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// Logs and stores the exceptions, and returns the report's part about them. If the object cannot be written, the restore
/// continues: the report has the first exceptions, and the node's log has all of them.
pub(in crate::restore) async fn store(
    context: &Context,
    operation: &Operation,
    backup: &BackupId,
    exceptions: &[Exception],
) -> ReportedExceptions {
    if exceptions.is_empty() {
        return ReportedExceptions::default();
    }
    for exception in exceptions {
        tracing::warn!(
            "the server refuses a part of the backup: {}",
            exception.text()
        );
    }
    let key = layout::exceptions(&context.settings.application, backup, operation);
    let record = ExceptionsRecord {
        operation_id: operation.clone(),
        backup_id: backup.clone(),
        restored_at: OffsetDateTime::now_utc(),
        exceptions: exceptions.to_vec(),
    };
    let key = match upload(context, &key, &record).await {
        Ok(()) => Some(key),
        Err(failure) => {
            let reason = failure.chain();
            tracing::warn!(reason, "cannot store the exceptions of the restore");
            None
        }
    };
    ReportedExceptions::new(exceptions, key)
}

/// Returns the report's part about the exceptions that an earlier run of this operation stored. Its own report is lost.
pub(in crate::restore) async fn stored(
    context: &Context,
    operation: &Operation,
    backup: &BackupId,
) -> ReportedExceptions {
    let key = layout::exceptions(&context.settings.application, backup, operation);
    let bucket = &context.bucket;
    // A node may not list the bucket, so it cannot distinguish a missing object from one that it may not read.
    let Ok(bytes) = s3::read(&bucket.client, &bucket.name, &key, None, MOST_BYTES).await else {
        return ReportedExceptions::default();
    };
    match serde_json::from_slice::<ExceptionsRecord>(&bytes) {
        Ok(record) => ReportedExceptions::new(&record.exceptions, Some(key)),
        Err(_) => ReportedExceptions::default(),
    }
}

async fn upload(context: &Context, key: &str, record: &ExceptionsRecord) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(record)
        .or_fail(ExitCode::Internal, || "cannot write the exceptions")?;
    // An earlier run of the same operation stored them, and was killed before it ended.
    if context
        .bucket
        .head(key, None)
        .await
        .is_ok_and(|head| head.is_some())
    {
        return Ok(());
    }
    let mut upload = Upload::new(&context.bucket, key.to_owned());
    upload.write(&bytes).await?;
    upload.finish(&digests(&bytes)).await?;
    Ok(())
}
