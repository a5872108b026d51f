//! The check that the objects of a backup are in S3 as its index records them.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use shared::aws::s3;
use shared::function::context::Context;
use shared::manifest::ObjectRecord;
use shared::{Error, Result};

/// How many objects are checked in parallel.
const CHECKS_AT_ONCE: usize = 16;

/// Compares every object in the bucket with its record.
///
/// # Errors
/// [`Error::Contract`] names the first object that differs.
pub(crate) async fn check(
    context: &Context,
    objects: impl IntoIterator<Item = &ObjectRecord>,
) -> Result<()> {
    stream::iter(objects)
        .map(|record| check_object(context, record))
        .buffer_unordered(CHECKS_AT_ONCE)
        .try_collect()
        .await
}

async fn check_object(context: &Context, record: &ObjectRecord) -> Result<()> {
    let (s3, bucket) = (&context.aws.s3, context.config.bucket.as_str());
    let head = s3::head(s3, bucket, &record.key, record.version_id.as_deref()).await?;
    let Some(head) = head else {
        return Err(Error::contract(
            &record.key,
            "the index lists it, but it is not in the bucket",
        ));
    };
    let problem = if head.size != record.size {
        format!(
            "it has {} bytes, the index records {}",
            head.size, record.size
        )
    } else if head.crc64.as_ref() != Some(&record.crc64) {
        format!(
            "S3's CRC-64 of it is not {}, which the index records",
            record.crc64
        )
    } else if !head.full_object {
        "its checksum does not cover the whole object".to_owned()
    } else if record.version_id.is_some() && head.version_id != record.version_id {
        "it is another version than the index records".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::contract(&record.key, problem))
}
