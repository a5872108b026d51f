//! The object in S3 that contains an image: found on this node or in S3, or uploaded.

use std::io::Read;
use std::path::PathBuf;

use shared::aws::failed;
use shared::checksum::{Digests, ObjectDigest};
use shared::command::Purpose;
use shared::exit_code::ExitCode;
use shared::id::Sha256;
use shared::layout;
use shared::manifest::ObjectRecord;
use tokio::sync::mpsc;

use super::{archive, engine};
use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::process::Stop;
use crate::agent::state::{DIRECTORY, write_durably};
use crate::context::Context;
use crate::objects::stream::{Check, WAITING, decode_and_check, stage};
use crate::s3::download;

/// Returns the object that contains an image. If there is none in S3, uploads it. A final backup looks only for the
/// object that this node has recorded.
pub(super) async fn find_or_upload(
    context: &Context,
    id: &Sha256,
    purpose: Purpose,
) -> Result<ObjectRecord> {
    if let Some(known) = known(context, id)
        && download::check_object(&context.bucket, &known)
            .await
            .is_ok()
    {
        return Ok(known);
    }
    if purpose == Purpose::Final {
        let message = "this node has no record of it, and a final backup has no time to save it";
        return Err(Failure::new(ExitCode::Busy, message));
    }
    let key = layout::image(&context.settings.application, id);
    let head = context.bucket.head(&key, None).await;
    let existing = head.or_fail(ExitCode::Upload, || format!("cannot look for {key}"))?;
    let object = match existing {
        Some(head) => read(context, &key, head.version_id, id).await?,
        None => upload(context, key, id).await?,
    };
    remember(context, id, &object)?;
    Ok(object)
}

async fn upload(context: &Context, key: String, id: &Sha256) -> Result<ObjectRecord> {
    let saving = engine::save(id);
    let source = async |chunks| {
        saving
            .stdout_to(chunks, &context.progress, ExitCode::Dump)
            .await
    };
    let staged = stage(&context.bucket, key, source, check(id)).await;
    let (staged, bytes, ()) = staged?;
    let object = staged.complete().await?;
    tracing::info!(image = %id, bytes, compressed = object.size, "saved an image");
    Ok(object)
}

/// Reads an object that this node has not uploaded, and checks that it contains the image: its key alone proves
/// nothing.
async fn read(
    context: &Context,
    key: &str,
    version: Option<String>,
    id: &Sha256,
) -> Result<ObjectRecord> {
    let message = || format!("cannot read {key}");
    let output = context
        .bucket
        .client
        .get_object()
        .bucket(&context.bucket.name)
        .key(key)
        .set_version_id(version.clone())
        .send()
        .await
        .map_err(failed("s3:GetObject"))
        .or_fail(ExitCode::Download, message)?;
    let (sender, chunks) = mpsc::channel(WAITING);
    let check = check(id);
    let checking = tokio::task::spawn_blocking(move || decode_and_check(chunks, check));
    let reading = async {
        let (mut body, mut digest) = (output.body, ObjectDigest::new());
        while let Some(chunk) = body.next().await {
            let chunk = chunk.or_fail(ExitCode::Download, message)?;
            digest.update(&chunk);
            context.progress.touch();
            sender.send(chunk).await.ok();
        }
        drop(sender);
        Result::Ok(digest.finish())
    };
    let (read, checked) = tokio::join!(reading, checking);
    let Digests {
        size,
        sha256,
        crc64,
    } = read?;
    checked.or_fail(ExitCode::Internal, message)??;
    let object = ObjectRecord {
        key: key.to_owned(),
        version_id: version,
        size,
        sha256,
        crc64,
    };
    tracing::info!(image = %id, "found an image in S3 and checked it");
    Ok(object)
}

fn check(id: &Sha256) -> Check<()> {
    let id = id.clone();
    Box::new(move |plain: &mut dyn Read| {
        archive::verify(plain, &id).map_err(|reason| {
            let message = format!("the archive of the image {id} is damaged: {reason}");
            Stop::Failed(Failure::new(ExitCode::Verification, message))
        })
    })
}

/// Returns the path of the file that records the object of an image, so that later backups need not read the object.
fn record_path(context: &Context, id: &Sha256) -> PathBuf {
    let directory = context.root.join(DIRECTORY).join("images");
    directory.join(format!("{id}.json"))
}

/// Records the object of an image on this node.
pub(super) fn remember(context: &Context, id: &Sha256, object: &ObjectRecord) -> Result<()> {
    let path = record_path(context, id);
    let bytes = serde_json::to_vec(object).or_fail(ExitCode::Internal, || {
        format!("cannot write {}", path.display())
    })?;
    write_durably(&path, &bytes)
}

/// Returns the recorded object of an image, or `None` if there is no readable record.
fn known(context: &Context, id: &Sha256) -> Option<ObjectRecord> {
    let bytes = std::fs::read(record_path(context, id)).ok()?;
    serde_json::from_slice(&bytes).ok()
}
