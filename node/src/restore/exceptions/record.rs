//! Writes the exceptions of a restore into an object beside its backup.

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

/// Stores the exceptions, and returns the report's part about them. If the object cannot be written, the node is ready
/// nevertheless: the report has the first exceptions, and the log has all of them.
pub(in crate::restore) async fn store(
    context: &Context,
    operation: &Operation,
    backup: &BackupId,
    exceptions: &[Exception],
) -> ReportedExceptions {
    if exceptions.is_empty() {
        return ReportedExceptions::default();
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
