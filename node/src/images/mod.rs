//! The images of the application's containers. Each image is saved once for all backups, and loaded on a node that
//! lacks it.
//!
//! A new node cannot pull the images of a registry's own containers from that registry while it is down. The data do
//! not depend on images, so a failure here is logged and recorded, but stops neither a backup nor a restore.

pub mod archive;
mod engine;
mod object;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use shared::budget;
use shared::command::Purpose;
use shared::exit_code::ExitCode;
use shared::id::Sha256;
use shared::manifest::{ImageRecord, Index, ObjectRecord};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::context::Context;
use crate::objects::stream::{WAITING, decode};
use crate::s3::download;

/// The time limit for saving images, in seconds after the start of the backup. The backup needs the rest of the
/// command's time to end.
const SAVE_SECONDS: u32 = budget::BACKUP_EXECUTION - 2 * budget::MARGIN;
/// The time limit for loading one image.
const LOAD_LIMIT: Duration = Duration::from_mins(10);
/// How many of the last bytes of an archive are held back until its digest is checked. They contain the end of the
/// archive, and without the end the engine loads nothing.
const HELD_BACK: usize = 64 * 1024;

/// The images of a backup.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    /// The images that are in S3.
    pub(crate) images: Vec<ImageRecord>,
    /// The reasons why the other images are not in S3.
    pub(crate) unsaved: Vec<String>,
}

/// Saves the images of the configured containers that are not in S3 yet. A final backup saves none, because it has no
/// time for them: it only names those that this node has recorded and that are in S3.
pub(crate) async fn save(context: &Context, purpose: Purpose, began: Instant) -> Saved {
    let (mut saved, mut seen) = (Saved::default(), BTreeSet::new());
    for container in &context.settings.image_containers {
        let saving = save_one(context, container, purpose, &mut seen);
        let saving = timeout_at(began + budget::seconds(SAVE_SECONDS), saving);
        let image = saving.await.unwrap_or_else(|_| {
            let message = format!("the backup has no time left after {SAVE_SECONDS} s");
            Err(Failure::new(ExitCode::Stalled, message))
        });
        match image {
            Ok(image) => saved.images.extend(image),
            Err(failure) => {
                let reason = failure.chain();
                tracing::error!(
                    container,
                    reason,
                    "cannot save the image of a container; the backup continues without it"
                );
                let unsaved = format!("the image of the container {container:?}: {reason}");
                saved.unsaved.push(unsaved);
            }
        }
    }
    // An upload that the time limit interrupted is still open.
    if !saved.unsaved.is_empty() {
        context.bucket.uploads.abort_all().await;
    }
    saved
}

/// Saves the image of one container. Returns `None` if an earlier container has the same image.
async fn save_one(
    context: &Context,
    container: &str,
    purpose: Purpose,
    seen: &mut BTreeSet<Sha256>,
) -> Result<Option<ImageRecord>> {
    let id = engine::image_of(container).await?;
    if !seen.insert(id.clone()) {
        return Ok(None);
    }
    let names = engine::names_of(&id).await?;
    let object = object::find_or_upload(context, &id, purpose).await?;
    Ok(Some(ImageRecord { id, names, object }))
}

/// Loads those of a backup's images that the node's engine lacks. Returns the reasons why images were not loaded.
pub(crate) async fn load(context: &Context, index: &Index) -> Vec<String> {
    let mut unloaded = Vec::new();
    if context.settings.image_containers.is_empty() {
        return unloaded;
    }
    for image in &index.images {
        let loading = load_one(context, image);
        let loading = context.progress.without_stall_limit(loading);
        let loaded = timeout(LOAD_LIMIT, loading).await.unwrap_or_else(|_| {
            let message = format!("it was not loaded within {} s", LOAD_LIMIT.as_secs());
            Err(Failure::new(ExitCode::Stalled, message))
        });
        if let Err(failure) = loaded {
            let reason = failure.chain();
            let names = image.names.join(", ");
            tracing::error!(
                image = %image.id,
                names,
                reason,
                "cannot load an image; the restore continues without it"
            );
            unloaded.push(format!("the image {} ({names}): {reason}", image.id));
        }
    }
    unloaded
}

async fn load_one(context: &Context, image: &ImageRecord) -> Result<()> {
    let reference = engine::reference(&image.id);
    if engine::has_image(&reference).await? {
        tracing::info!(image = %image.id, "the engine has the image already");
    } else {
        let began = Instant::now();
        download::check_object(&context.bucket, &image.object).await?;
        load_archive(context, &image.object).await?;
        if !engine::has_image(&reference).await? {
            let message = "the engine loaded another image from the archive";
            return Err(Failure::new(ExitCode::Verification, message));
        }
        let seconds = began.elapsed().as_secs_f64();
        tracing::info!(image = %image.id, seconds, "loaded an image");
    }
    for name in &image.names {
        // If the node has another image of this name, the operator chose it.
        if !engine::has_image(name).await? {
            engine::name(&image.id, name).await?;
        }
    }
    object::remember(context, &image.id, &image.object)
}

/// Streams an archive into the engine. Its end is sent only if the whole archive is the committed one.
async fn load_archive(context: &Context, object: &ObjectRecord) -> Result<()> {
    let (to_hold, decoded) = mpsc::channel(WAITING);
    let (to_engine, chunks) = mpsc::channel(WAITING);
    let decoding = download::read(&context.bucket, object, move |reader| {
        decode(reader, &to_hold)
    });
    let checked = async move {
        let (decoded_to_end, held) = tokio::join!(decoding, hold_back(decoded, &to_engine));
        decoded_to_end?.or_fail(ExitCode::Verification, || {
            format!("cannot decode {}", object.key)
        })?;
        for chunk in held {
            // If the engine has stopped reading, its own failure is the cause.
            to_engine.send(chunk).await.ok();
        }
        Ok(())
    };
    let loading = engine::load().stdin_from(chunks, &context.progress, ExitCode::Restore);
    let (checked, loaded) = tokio::join!(checked, loading);
    checked.and(loaded)
}

/// Sends all chunks but the last bytes, which it returns.
async fn hold_back(
    mut chunks: mpsc::Receiver<Bytes>,
    consumer: &mpsc::Sender<Bytes>,
) -> VecDeque<Bytes> {
    let (mut held, mut length) = (VecDeque::<Bytes>::new(), 0);
    while let Some(chunk) = chunks.recv().await {
        length += chunk.len();
        held.push_back(chunk);
        while let Some(first) = held.front()
            && length - first.len() >= HELD_BACK
        {
            length -= first.len();
            let Some(first) = held.pop_front() else { break };
            consumer.send(first).await.ok();
        }
    }
    held
}
