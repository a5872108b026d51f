//! The configuration archive: a tar of every configured path with all attributes of its files.
//!
//! Entry names are `<number of the path>/<path below it>`, or only the number for the path itself. The archive keeps
//! numeric owners, modes, times in nanoseconds, symbolic and hard links, FIFOs, and extended attributes, which include
//! access control lists. It does not contain sockets: their servers create them again.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use shared::exit_code::ExitCode;
use shared::manifest::ObjectRecord;
use tokio::sync::mpsc;

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::process::Stop;
use crate::agent::watchdog::Progress;
use crate::chunks::CHUNK;
use crate::context::Context;
use crate::files::mounts::{is_of_kernel, mount_points, within};
use crate::files::tree::{CaptureError, write_tree};
use crate::files::{on_node, shown};
use crate::objects::stream::stage;
use crate::settings::Settings;

/// Checks that every configured path exists and can be archived.
pub(crate) fn check(settings: &Settings, root: &Path) -> Result<()> {
    let (mut missing, mut unusable) = (Vec::new(), Vec::new());
    for path in &settings.configuration_paths {
        let path = on_node(root, path);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() || metadata.is_file() => {}
            Ok(metadata) if metadata.is_symlink() => unusable.push(format!(
                "{} is a symbolic link (configure its target instead)",
                path.display()
            )),
            Ok(metadata) if metadata.file_type().is_fifo() => {}
            Ok(_) => unusable.push(format!(
                "{} is neither a directory nor a file (remove it from [configuration] paths)",
                path.display()
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                missing.push(path.display().to_string());
            }
            Err(error) => unusable.push(format!("{}: {error}", path.display())),
        }
    }
    if !missing.is_empty() {
        let message = format!(
            "configured paths do not exist: {}; create them, or remove them from [configuration] paths",
            missing.join(", ")
        );
        return Err(Failure::new(ExitCode::ConfigurationMissing, message));
    }
    if !unusable.is_empty() {
        return Err(Failure::new(
            ExitCode::ConfigurationCapture,
            format!("cannot archive the configuration: {}", unusable.join("; ")),
        ));
    }
    Ok(())
}

/// Names each file system that is mounted within a configured path in the log.
pub(crate) fn warn_of_mounts(settings: &Settings, root: &Path) {
    let mounts = match mount_points() {
        Ok(mounts) => mounts,
        Err(error) => {
            tracing::warn!(%error, "cannot read the mount points");
            return;
        }
    };
    for configured in &settings.configuration_paths {
        let mut left_out = Vec::new();
        for mount in within(&on_node(root, configured), &mounts) {
            if left_out.iter().any(|other| mount.starts_with(other)) {
                continue;
            }
            let of_kernel = is_of_kernel(&mount).unwrap_or(false);
            let meaning = if of_kernel {
                "it is a file system of the kernel; the backup has none of its files"
            } else {
                "the backup has its files, and a restore writes them into the same mount of the new node"
            };
            tracing::warn!(
                mount = %shown(&mount), configured = %configured.display(), meaning,
                "a file system is mounted within a configured path"
            );
            if of_kernel {
                left_out.push(mount);
            }
        }
    }
}

/// Uploads the archive of the configured paths. If a file shrinks while it is read, the archive is started again, once.
pub(crate) async fn upload(context: &Context, key: String) -> Result<ObjectRecord> {
    let configured = context.settings.configuration_paths.iter();
    let paths: Vec<PathBuf> = configured
        .map(|path| on_node(&context.root, path))
        .collect();
    let mut retried = false;
    loop {
        let source = async |chunks| {
            let (paths, progress) = (paths.clone(), context.progress.clone());
            let writing = tokio::task::spawn_blocking(move || archive(&paths, chunks, progress));
            let written = writing.await;
            written.or_fail(ExitCode::Internal, || "cannot archive the configuration")?
        };
        let staged = stage(
            &context.bucket,
            key.clone(),
            source,
            Box::new(count_entries),
        )
        .await;
        let (staged, written, read) = match staged {
            Err(Stop::Failed(failure)) if !retried && shrank(&failure) => {
                tracing::warn!(
                    reason = failure.chain(),
                    "archiving the configuration again"
                );
                retried = true;
                continue;
            }
            other => other?,
        };
        if written != read {
            staged.abort().await;
            let message = format!(
                "cannot verify the configuration archive: {written} entries were written, but {read} were read back"
            );
            return Err(Failure::new(ExitCode::Verification, message));
        }
        return staged.complete().await;
    }
}

fn shrank(failure: &Failure) -> bool {
    matches!(
        failure.cause.downcast_ref::<CaptureError>(),
        Some(CaptureError::Changed(_))
    )
}

/// Writes the archive as chunks. Returns the number of entries.
fn archive(
    paths: &[PathBuf],
    chunks: mpsc::Sender<Bytes>,
    progress: Progress,
) -> std::result::Result<u64, Stop> {
    let writer = ChunkWriter {
        chunks,
        progress,
        receiver_dropped: false,
    };
    let mut writer = io::BufWriter::with_capacity(CHUNK, writer);
    let written = write_tree(paths, &mut writer);
    let receiver_dropped = writer.get_ref().receiver_dropped;
    match written {
        Ok(entries) => Ok(entries),
        // The receiver's own failure is the cause.
        Err(_) if receiver_dropped => Err(Stop::Downstream),
        Err(error) => {
            let failure = Failure {
                code: ExitCode::ConfigurationCapture,
                cause: error.into(),
            };
            Err(failure.into())
        }
    }
}

/// Reads the archive to its end. Returns the number of entries.
fn count_entries(decoded: &mut dyn Read) -> std::result::Result<u64, Stop> {
    let doing = || "cannot read the configuration archive back";
    let mut archive = tar::Archive::new(decoded);
    let mut count = 0;
    for entry in archive.entries().or_fail(ExitCode::Verification, doing)? {
        let mut entry = entry.or_fail(ExitCode::Verification, doing)?;
        let read = io::copy(&mut entry, &mut io::sink()).or_fail(ExitCode::Verification, doing)?;
        if read != entry.size() {
            let message = "cannot read the configuration archive back: it ends within a file";
            return Err(Failure::new(ExitCode::Verification, message).into());
        }
        count += 1;
    }
    // Padding follows the last entry.
    io::copy(&mut archive.into_inner(), &mut io::sink()).or_fail(ExitCode::Verification, doing)?;
    Ok(count)
}

/// Writes chunks into a channel.
struct ChunkWriter {
    chunks: mpsc::Sender<Bytes>,
    progress: Progress,
    receiver_dropped: bool,
}

impl io::Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.progress.touch();
        if self
            .chunks
            .blocking_send(Bytes::copy_from_slice(bytes))
            .is_err()
        {
            self.receiver_dropped = true;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
