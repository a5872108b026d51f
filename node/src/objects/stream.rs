//! Uploads a stream: compresses it with zstd, sends it to S3, and decodes the same compressed bytes again to check
//! them.
//!
//! Four stages run side by side: source, compression, upload and check. Each has a thread or task of its own and sends
//! its chunks through a bounded channel. The object does not exist until the caller completes it.

use std::io::{self, Read};

use bytes::Bytes;
use shared::checksum::{Digests, ObjectDigest};
use shared::exit_code::ExitCode;
use shared::manifest::ObjectRecord;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::process::Stop;
use crate::chunks::{CHUNK, ChunkReader, next_chunk};
use crate::s3::Bucket;
use crate::s3::upload::Upload;

/// The compression level. Level 1 takes half the time of level 3. The rows of a registry consist mostly of digests, in
/// which a longer search finds no matches: its dumps are even smaller with level 1.
const LEVEL: i32 = 1;

/// Bytes that are compressed into one frame. In one long frame, the encoder would move all bytes through a ring buffer
/// and look for most matches across its end. A compressed frame usually fits into a channel, so that the next stages
/// work on it while the next frame is compressed.
const FRAME: usize = 1024 * 1024;

/// Compressed bytes per chunk.
const COMPRESSED_CHUNK: usize = 128 * 1024;

/// The capacity of the channel between two stages, in chunks.
pub(crate) const WAITING: usize = 8;

/// An uploaded object, which does not exist until it is completed. All of its bytes are in S3.
#[derive(Debug)]
pub(crate) struct Staged {
    upload: Upload,
    digests: Digests,
}

impl Staged {
    /// Completes the upload, so that the object exists.
    pub(crate) async fn complete(self) -> Result<ObjectRecord> {
        self.upload.finish(&self.digests).await
    }

    /// Aborts the upload.
    pub(crate) async fn abort(self) {
        self.upload.abort().await;
    }
}

/// Checks an object: reads its decoded bytes to the end, and returns what it found in them.
pub(crate) type Check<T> = Box<dyn FnOnce(&mut dyn Read) -> std::result::Result<T, Stop> + Send>;

/// Uploads everything that `source` sends, and runs `check` on the decoded bytes. Returns the object with the results
/// of `source` and `check`. Aborts the upload if any of them fails.
pub(crate) async fn stage<S, T: Send + 'static>(
    bucket: &Bucket,
    key: String,
    source: impl AsyncFnOnce(mpsc::Sender<Bytes>) -> std::result::Result<S, Stop>,
    check: Check<T>,
) -> std::result::Result<(Staged, S, T), Stop> {
    let (plain, plain_chunks) = mpsc::channel(WAITING);
    let (to_upload, upload_chunks) = mpsc::channel(WAITING);
    let (to_check, check_chunks) = mpsc::channel(WAITING);

    let compressing =
        tokio::task::spawn_blocking(move || compress(plain_chunks, [to_upload, to_check]));
    let checking = tokio::task::spawn_blocking(move || decode_and_check(check_chunks, check));
    let mut upload = Upload::new(bucket, key);
    let uploading = send(&mut upload, upload_chunks);
    let (source, uploaded) = tokio::join!(source(plain), uploading);
    let (compressed, checked) = (joined(compressing).await, joined(checking).await);

    match all_or_cause(uploaded, source, checked, compressed) {
        Ok((source, checked, digests)) => Ok((Staged { upload, digests }, source, checked)),
        Err(stop) => {
            upload.abort().await;
            Err(stop)
        }
    }
}

/// Returns the results of all stages, or the cause of the failure.
///
/// A failed stage also ends the others. The first one in this order that failed by itself is the cause: if the source
/// ends early, the check fails too, with a truncated stream.
fn all_or_cause<S, T>(
    uploaded: Result<()>,
    source: std::result::Result<S, Stop>,
    checked: std::result::Result<T, Stop>,
    compressed: std::result::Result<Digests, Stop>,
) -> std::result::Result<(S, T, Digests), Stop> {
    match (uploaded, source, checked, compressed) {
        (Ok(()), Ok(source), Ok(checked), Ok(digests)) => Ok((source, checked, digests)),
        (uploaded, source, checked, compressed) => {
            let stops = [
                uploaded.err().map(Stop::Failed),
                source.err(),
                checked.err(),
                compressed.err(),
            ];
            let mut stops = stops.into_iter().flatten();
            let cause = stops.find(|stop| matches!(stop, Stop::Failed(_)));
            Err(cause.unwrap_or(Stop::Downstream))
        }
    }
}

async fn send(upload: &mut Upload, mut chunks: mpsc::Receiver<Bytes>) -> Result<()> {
    while let Some(chunk) = chunks.recv().await {
        upload.write(&chunk).await?;
    }
    Ok(())
}

async fn joined<T>(
    handle: JoinHandle<std::result::Result<T, Stop>>,
) -> std::result::Result<T, Stop> {
    handle
        .await
        .or_fail(ExitCode::Internal, || "cannot run a stage of a stream")?
}

fn compress(
    mut chunks: mpsc::Receiver<Bytes>,
    consumers: [mpsc::Sender<Bytes>; 2],
) -> std::result::Result<Digests, Stop> {
    // One thread is as fast as any dump and needs a few MiB; several would need tens of MiB.
    let mut encoder = zstd::bulk::Compressor::new(LEVEL).map_err(cannot_compress)?;
    encoder.include_checksum(true).map_err(cannot_compress)?;
    let mut frames = Frames {
        encoder,
        frame: Vec::with_capacity(zstd::zstd_safe::compress_bound(FRAME)),
        consumers,
        digest: ObjectDigest::new(),
    };
    let mut plain = Vec::with_capacity(FRAME);
    while let Some(mut chunk) = chunks.blocking_recv() {
        while !chunk.is_empty() {
            if plain.len() == FRAME {
                frames.send(&plain)?;
                plain.clear();
            }
            let fits = chunk.len().min(FRAME - plain.len());
            plain.extend_from_slice(&chunk.split_to(fits));
        }
    }
    // An empty source also makes a frame.
    frames.send(&plain)?;
    Ok(frames.digest.finish())
}

fn cannot_compress(error: io::Error) -> Stop {
    Failure::caused(ExitCode::Internal, error, "cannot compress with zstd").into()
}

/// Compresses frames, computes their digests, and sends them to the upload and to the check.
struct Frames {
    encoder: zstd::bulk::Compressor<'static>,
    /// The last frame. Its capacity is enough for bytes that cannot be compressed.
    frame: Vec<u8>,
    consumers: [mpsc::Sender<Bytes>; 2],
    digest: ObjectDigest,
}

impl Frames {
    fn send(&mut self, plain: &[u8]) -> std::result::Result<(), Stop> {
        let compressed = self.encoder.compress_to_buffer(plain, &mut self.frame);
        compressed.map_err(cannot_compress)?;
        self.digest.update(&self.frame);
        for chunk in self.frame.chunks(COMPRESSED_CHUNK) {
            let chunk = Bytes::copy_from_slice(chunk);
            for consumer in &self.consumers {
                let sent = consumer.blocking_send(chunk.clone());
                sent.map_err(|_| Stop::Downstream)?;
            }
        }
        Ok(())
    }
}

/// Decodes chunks to their end while `check` reads the decoded bytes.
pub(crate) fn decode_and_check<T>(
    chunks: mpsc::Receiver<Bytes>,
    check: Check<T>,
) -> std::result::Result<T, Stop> {
    let doing = || "cannot decode the uploaded bytes";
    let mut decoder =
        zstd::Decoder::new(ChunkReader::new(chunks)).or_fail(ExitCode::Verification, doing)?;
    let found = check(&mut decoder)?;
    // Read on: the checksum of the last frame comes after its last byte.
    let rest = io::copy(&mut decoder, &mut io::sink()).or_fail(ExitCode::Verification, doing)?;
    if rest > 0 {
        let message =
            format!("cannot accept the uploaded bytes: {rest} bytes follow the expected end");
        return Err(Failure::new(ExitCode::Verification, message).into());
    }
    Ok(found)
}

/// Decodes a stream to its end, and sends its plain bytes. Stops early if the receiver is dropped.
pub(crate) fn decode(reader: impl Read, sender: &mpsc::Sender<Bytes>) -> io::Result<()> {
    let mut decoder = zstd::Decoder::new(reader)?;
    let mut buffer = vec![0; CHUNK];
    while let Some(chunk) = next_chunk(&mut decoder, &mut buffer)? {
        if sender.blocking_send(Bytes::copy_from_slice(chunk)).is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compresses the bytes, and returns the object, its decoded bytes and its digests.
    fn round_trip(bytes: Vec<u8>) -> (Vec<u8>, Vec<u8>, Digests) {
        let (source, plain) = mpsc::channel(WAITING);
        let (to_upload, mut uploaded) = mpsc::channel(64);
        let (to_decode, decoding) = mpsc::channel(64);
        let sending = std::thread::spawn(move || {
            // A frame's length is not a multiple of this chunk length.
            for chunk in bytes.chunks(100_003) {
                source.blocking_send(Bytes::copy_from_slice(chunk)).unwrap();
            }
        });
        let Ok(digests) = compress(plain, [to_upload, to_decode]) else {
            panic!("cannot compress");
        };
        sending.join().unwrap();
        let mut object = Vec::new();
        while let Some(chunk) = uploaded.blocking_recv() {
            object.extend_from_slice(&chunk);
        }
        let check: Check<Vec<u8>> = Box::new(|reader| {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            Ok(all)
        });
        let Ok(decoded) = decode_and_check(decoding, check) else {
            panic!("cannot decode");
        };
        (object, decoded, digests)
    }

    #[test]
    fn frames_are_one_stream_for_every_length_of_the_source() {
        for length in [0, 1, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME] {
            let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
            let (object, decoded, digests) = round_trip(bytes.clone());
            assert!(decoded == bytes, "{length}");
            assert!(zstd::decode_all(&object[..]).unwrap() == bytes, "{length}");
            assert_eq!(digests.size, object.len() as u64);
            assert_eq!(digests.sha256, shared::checksum::digests(&object).sha256);
        }
    }
}
