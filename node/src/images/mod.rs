//! The images of the application's containers: saved once for all backups, and loaded where an engine lacks them.
//!
//! A registry that is down cannot serve the images that it is made of. They are a convenience beside the data: whatever
//! goes wrong with one is said loudly, and neither keeps the data from being backed up nor from being restored.

pub mod archive;

use std::collections::{BTreeSet, VecDeque};
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use shared::aws::{failed, s3};
use shared::budget;
use shared::checksum::{Digests, ObjectDigest};
use shared::command::Purpose;
use shared::id::Sha256;
use shared::layout;
use shared::manifest::{ImageRecord, Index, ObjectRecord};
use shared::report::ExitCode;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::process::{Program, Stop};
use crate::agent::state::{DIRECTORY, write_durably};
use crate::context::Context;
use crate::objects::stream;
use crate::objects::stream::{Check, WAITING, decode, into_failure, stage};
use crate::s3::download;

/// Seconds after a backup's begin in which images may still be saved: the command must end in its time.
const SAVING: u32 = budget::BACKUP_EXECUTION - 2 * budget::MARGIN;
/// How long loading one image may take.
const LOAD_LIMIT: Duration = Duration::from_mins(10);
/// How long the engine may take to answer a question.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// The bytes of an archive that are held back until its digest was checked. Its end is among them, without which an
/// engine loads nothing.
const HELD_BACK: usize = 64 * 1024;

/// What a backup says of images.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    /// Those that are in S3.
    pub(crate) images: Vec<ImageRecord>,
    /// What stood in the way of the others.
    pub(crate) unsaved: Vec<String>,
}

/// Saves the images of the configured containers, as far as they are not in S3 already. A final backup takes only those:
/// its time belongs to the data.
pub(crate) async fn save(context: &Context, purpose: Purpose, began: Instant) -> Saved {
    let (mut saved, mut seen) = (Saved::default(), BTreeSet::new());
    for container in &context.settings.image_containers {
        let one = async {
            let id = image_of(container).await?;
            if !seen.insert(id.clone()) {
                return Ok(None);
            }
            let names = names_of(&id).await?;
            let object = object(context, &id, purpose).await?;
            Ok(Some(ImageRecord { id, names, object }))
        };
        let one = match timeout_at(began + budget::seconds(SAVING), one).await {
            Ok(one) => one,
            Err(_) => Err(Failure::new(ExitCode::Stalled, "the backup's time is up")),
        };
        match one {
            Ok(image) => saved.images.extend(image),
            Err(failure) => {
                let problem = format!(
                    "the image of the container {container:?}: {}",
                    failure.chain()
                );
                tracing::error!(container, "not saved: {problem}");
                saved.unsaved.push(problem);
            }
        }
    }
    // What was given up in the middle has begun an upload.
    if !saved.unsaved.is_empty() {
        context.bucket.uploads.abort_all().await;
    }
    saved
}

/// Loads what the node's engine lacks of a backup's images; returns what stood in the way.
pub(crate) async fn load(context: &Context, index: &Index) -> Vec<String> {
    let mut unloaded = Vec::new();
    if context.settings.image_containers.is_empty() {
        return unloaded;
    }
    for image in &index.images {
        let loading = context
            .progress
            .without_stall_limit(load_one(context, image));
        let loaded = match timeout(LOAD_LIMIT, loading).await {
            Ok(loaded) => loaded,
            Err(_) => Err(Failure::new(ExitCode::Stalled, "it was not loaded in time")),
        };
        if let Err(failure) = loaded {
            let problem = format!(
                "the image {} ({}): {}",
                image.id,
                image.names.join(", "),
                failure.chain()
            );
            tracing::error!("not loaded: {problem}");
            unloaded.push(problem);
        }
    }
    unloaded
}

async fn load_one(context: &Context, image: &ImageRecord) -> Result<()> {
    let reference = format!("sha256:{}", image.id);
    if is_there(&reference).await? {
        tracing::info!(image = %image.id, "the engine has the image");
    } else {
        let began = Instant::now();
        download::check_object(&context.bucket, &image.object).await?;
        from_archive(context, &image.object).await?;
        if !is_there(&reference).await? {
            let message = "the engine loaded something else";
            return Err(Failure::new(ExitCode::Verification, message));
        }
        let seconds = began.elapsed().as_secs_f64();
        tracing::info!(image = %image.id, seconds, "loaded");
    }
    for name in &image.names {
        // What the node calls so itself is the operator's choice.
        if !is_there(name).await? {
            answer(docker(["tag", &reference, name])).await?;
        }
    }
    remember(context, &image.id, &image.object)
}

/// Streams an archive into the engine, and its end only if the whole was what was committed.
async fn from_archive(context: &Context, object: &ObjectRecord) -> Result<()> {
    let (downloading, reader) = download::stream(&context.bucket, object);
    let (to_hold, decoded) = mpsc::channel(WAITING);
    let (to_engine, chunks) = mpsc::channel(WAITING);
    let decoding = tokio::task::spawn_blocking(move || decode(reader, &to_hold));
    let checked = async move {
        let (downloaded, decoded, held) =
            tokio::join!(downloading, decoding, hold_back(decoded, &to_engine));
        downloaded?;
        let doing = || format!("decode {}", object.key);
        decoded
            .or_fail(ExitCode::Internal, doing)?
            .or_fail(ExitCode::Verification, doing)?;
        for chunk in held {
            // An engine that has had enough says why.
            to_engine.send(chunk).await.ok();
        }
        Ok(())
    };
    let loading =
        docker(["load", "--quiet"]).stdin_from(chunks, &context.progress, ExitCode::Restore);
    let (checked, loaded) = tokio::join!(checked, loading);
    checked.and(loaded)
}

/// Hands chunks on, all but the last bytes, which it returns.
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

/// Returns the object that holds an image, and puts it there if there is none.
async fn object(context: &Context, id: &Sha256, purpose: Purpose) -> Result<ObjectRecord> {
    if let Some(known) = recall(context, id)
        && download::check_object(&context.bucket, &known)
            .await
            .is_ok()
    {
        return Ok(known);
    }
    let key = layout::image(&context.settings.application, id);
    let head = s3::head(&context.bucket.client, &context.bucket.name, &key, None).await;
    let there = match head {
        Ok(there) => there,
        // To a node, which may not list, S3 says "denied" of an object that is not there.
        Err(error) if error.aws_code() == Some("AccessDenied") => None,
        Err(error) => return Err(error).or_fail(ExitCode::Upload, || format!("look for {key}")),
    };
    if purpose == Purpose::Final {
        let message = "it was not saved before, and a final backup has no time for it";
        return Err(Failure::new(ExitCode::Busy, message));
    }
    let object = match there {
        Some(head) => read(context, &key, head.version_id, id).await?,
        None => upload(context, key, id).await?,
    };
    remember(context, id, &object)?;
    Ok(object)
}

async fn upload(context: &Context, key: String, id: &Sha256) -> Result<ObjectRecord> {
    // By its id, so that nothing in the archive says which names are to be taken.
    let save = docker(["save", &format!("sha256:{id}")]);
    let source = async |chunks| {
        save.stdout_to(chunks, &context.progress, ExitCode::Dump)
            .await
    };
    let staged = stage(context, key, source, proof(id)).await;
    let (staged, bytes, ()) = staged.map_err(into_failure)?;
    let object = staged.complete().await?;
    tracing::info!(image = %id, bytes, compressed = object.size, "saved");
    Ok(object)
}

/// Reads an object that somebody else has put, to know what it is: its name alone proves nothing.
async fn read(
    context: &Context,
    key: &str,
    version: Option<String>,
    id: &Sha256,
) -> Result<ObjectRecord> {
    let doing = || format!("read {key}");
    let bucket = &context.bucket;
    let output = bucket
        .client
        .get_object()
        .bucket(&bucket.name)
        .key(key)
        .set_version_id(version.clone())
        .send()
        .await
        .map_err(failed("s3:GetObject"))
        .or_fail(ExitCode::Download, doing)?;
    let (sender, chunks) = mpsc::channel(WAITING);
    let proof = proof(id);
    let decoding = tokio::task::spawn_blocking(move || stream::decode_and_check(chunks, proof));
    let reading = async {
        let (mut body, mut digest) = (output.body, ObjectDigest::new());
        while let Some(piece) = body.next().await {
            let piece = piece.or_fail(ExitCode::Download, doing)?;
            digest.update(&piece);
            context.progress.touch();
            sender.send(piece).await.ok();
        }
        drop(sender);
        Ok(digest.finish())
    };
    let (read, decoded) = tokio::join!(reading, decoding);
    let Digests {
        size,
        sha256,
        crc64,
    } = read?;
    decoded
        .or_fail(ExitCode::Internal, doing)?
        .map_err(into_failure)?;
    let object = ObjectRecord {
        key: key.to_owned(),
        version_id: version,
        size,
        sha256,
        crc64,
    };
    tracing::info!(image = %id, "found in S3, and read");
    Ok(object)
}

fn proof(id: &Sha256) -> Check<()> {
    let id = id.clone();
    Box::new(move |plain: &mut dyn Read| {
        archive::verify(plain, &id).map_err(|problem| {
            let message = format!("the archive of the image {id}: {problem}");
            Stop::Failed(Failure::new(ExitCode::Verification, message))
        })
    })
}

async fn image_of(container: &str) -> Result<Sha256> {
    let format = ["--type", "container", "--format", "{{.Image}}"];
    let inspect = docker(["inspect"]).args(format).arg(container);
    let id = answer(inspect).await?;
    let id = id.trim();
    id.strip_prefix("sha256:")
        .unwrap_or(id)
        .parse()
        .or_fail(ExitCode::Internal, || "read the answer of docker inspect")
}

async fn names_of(id: &Sha256) -> Result<Vec<String>> {
    let reference = format!("sha256:{id}");
    let names = answer(inspect_image("{{json .RepoTags}}", &reference)).await?;
    let names: Option<Vec<String>> = serde_json::from_str(&names).or_fail(
        ExitCode::Internal,
        || "read the answer of docker image inspect",
    )?;
    Ok(names.unwrap_or_default())
}

/// Returns whether the engine has an image. An engine that does not answer is an error.
async fn is_there(reference: &str) -> Result<bool> {
    match answer(inspect_image("{{.Id}}", reference)).await {
        Ok(_) => Ok(true),
        Err(failure) if failure.chain().contains("No such image") => Ok(false),
        Err(failure) => Err(failure),
    }
}

fn inspect_image(format: &str, reference: &str) -> Program {
    docker(["image", "inspect", "--format", format, reference]).quiet()
}

/// Prepares a command of the container engine; failures and the log call it by its first word, as in `docker load`.
fn docker<const N: usize>(arguments: [&str; N]) -> Program {
    let label = format!("docker {}", arguments.first().unwrap_or(&""));
    Program::new("docker").label(label).args(arguments)
}

async fn answer(command: Program) -> Result<String> {
    let output = command.limit(ANSWER_LIMIT).output(ExitCode::Internal);
    Ok(String::from_utf8_lossy(&output.await?).into_owned())
}

/// Returns the file in which this node keeps what it knows of an image's object, so that no backup has to read it.
fn known(context: &Context, id: &Sha256) -> PathBuf {
    let directory = context.root.join(DIRECTORY).join("images");
    directory.join(format!("{id}.json"))
}

fn remember(context: &Context, id: &Sha256, object: &ObjectRecord) -> Result<()> {
    let path = known(context, id);
    let doing = || format!("write {}", path.display());
    let bytes = serde_json::to_vec(object).or_fail(ExitCode::Internal, doing)?;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).or_fail(ExitCode::NodeState, doing)?;
    }
    write_durably(&path, &bytes)
}

/// What cannot be read is found out again.
fn recall(context: &Context, id: &Sha256) -> Option<ObjectRecord> {
    let bytes = std::fs::read(known(context, id)).ok()?;
    serde_json::from_slice(&bytes).ok()
}
