//! The configuration archive: a tar of every configured path, with everything that makes a file what it is.
//!
//! Entry names are `<number of the path>/<path below it>`, or only the number for the path itself. Numeric owners,
//! modes, times to the nanosecond, symbolic and hard links, FIFOs, extended attributes and so access control
//! lists are kept. Sockets are not: their servers make them again.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use shared::manifest::ObjectRecord;
use shared::report::ExitCode;
use tokio::sync::mpsc;

use crate::agent::context::Context;
use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::process::Stop;
use crate::agent::watchdog::Progress;
use crate::backup::dump::into_failure;
use crate::backup::stream::stage;
use crate::backup::tree::{CaptureError, write_tree};
use crate::settings::Settings;

/// How much is handed on at once, in bytes.
const CHUNK: usize = 256 * 1024;

/// Checks that every configured path is there, and something that can be archived.
pub(crate) fn check(settings: &Settings, root: &Path) -> Result<()> {
    let (mut missing, mut unfit) = (Vec::new(), Vec::new());
    for path in &settings.configuration_paths {
        let path = on_node(root, path);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() || metadata.is_file() => {}
            Ok(metadata) if metadata.is_symlink() => unfit.push(format!(
                "{} is a symbolic link: configure what it points to",
                path.display()
            )),
            Ok(metadata) if metadata.file_type().is_fifo() => {}
            Ok(_) => unfit.push(format!(
                "{} is neither a directory nor a file",
                path.display()
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                missing.push(path.display().to_string());
            }
            Err(error) => unfit.push(format!("{}: {error}", path.display())),
        }
    }
    if !missing.is_empty() {
        let message = format!(
            "configured paths do not exist: {}; create them, or take them off [configuration] paths",
            missing.join(", ")
        );
        return Err(Failure::new(ExitCode::ConfigurationMissing, message));
    }
    if !unfit.is_empty() {
        return Err(Failure::new(
            ExitCode::ConfigurationCapture,
            unfit.join("; "),
        ));
    }
    Ok(())
}

/// Archives the configured paths. A file that shrinks while it is read starts the archive over, once.
pub(crate) async fn configuration(context: &Context, key: String) -> Result<ObjectRecord> {
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
            written.or_fail(ExitCode::Internal, || "archive the configuration")?
        };
        let staged = stage(context, key.clone(), source, Box::new(count_entries)).await;
        let (staged, written, read) = match staged {
            Err(Stop::Failed(failure)) if !retried && shrank(&failure) => {
                tracing::warn!(cause = failure.chain(), "archiving the configuration again");
                retried = true;
                continue;
            }
            other => other.map_err(into_failure)?,
        };
        if written != read {
            staged.abort().await;
            let message = format!("{written} entries were archived, {read} could be read back");
            return Err(Failure::new(ExitCode::Verification, message));
        }
        return staged.complete().await;
    }
}

/// Returns where an absolute path lies on the node with this root.
pub(crate) fn on_node(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn shrank(failure: &Failure) -> bool {
    matches!(
        failure.cause.downcast_ref::<CaptureError>(),
        Some(CaptureError::Changed(_))
    )
}

fn archive(
    paths: &[PathBuf],
    chunks: mpsc::Sender<Bytes>,
    progress: Progress,
) -> std::result::Result<u64, Stop> {
    let writer = ChunkWriter {
        chunks,
        progress,
        gone: false,
    };
    let mut writer = io::BufWriter::with_capacity(CHUNK, writer);
    let written = write_tree(paths, &mut writer);
    let gone = writer.get_ref().gone;
    match written {
        Ok(entries) => Ok(entries),
        // The consumer's own failure says why.
        Err(_) if gone => Err(Stop::Downstream),
        Err(error) => {
            let failure = Failure {
                code: ExitCode::ConfigurationCapture,
                cause: error.into(),
            };
            Err(failure.into())
        }
    }
}

fn count_entries(decoded: &mut dyn Read) -> std::result::Result<u64, Stop> {
    let doing = || "read the configuration archive back";
    let mut archive = tar::Archive::new(decoded);
    let mut count = 0;
    for entry in archive.entries().or_fail(ExitCode::Verification, doing)? {
        let mut entry = entry.or_fail(ExitCode::Verification, doing)?;
        let read = io::copy(&mut entry, &mut io::sink()).or_fail(ExitCode::Verification, doing)?;
        if read != entry.size() {
            let message = "the configuration archive ends within a file";
            return Err(Failure::new(ExitCode::Verification, message).into());
        }
        count += 1;
    }
    // What follows the last entry is padding.
    io::copy(&mut archive.into_inner(), &mut io::sink()).or_fail(ExitCode::Verification, doing)?;
    Ok(count)
}

/// Writes into a channel.
struct ChunkWriter {
    chunks: mpsc::Sender<Bytes>,
    progress: Progress,
    gone: bool,
}

impl io::Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.progress.touch();
        if self
            .chunks
            .blocking_send(Bytes::copy_from_slice(bytes))
            .is_err()
        {
            self.gone = true;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
