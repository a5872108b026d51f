//! The way of an object: its source, through zstd, into S3, and decoded again as proof.
//!
//! Four stages run side by side, each with its own thread or task and a bounded channel behind it. The decoder
//! reads the very bytes that are uploaded. Nothing is completed here: the caller does that once every stage, and
//! whatever else it waits for, has succeeded.

use std::io::{self, Read};

use bytes::Bytes;
use shared::checksum::{Digests, ObjectDigest};
use shared::manifest::ObjectRecord;
use shared::report::ExitCode;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::agent::context::Context;
use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::process::Stop;
use crate::s3::upload::Upload;

/// The compression level. Level 1 takes half the time of level 3, and the digests that such applications' rows are full
/// of leave a better match nothing to find: their dumps even become smaller.
const LEVEL: i32 = 1;

/// How many bytes become a frame of their own. An encoder of one long frame moves everything through a ring, and looks for
/// most matches across its seam. What a frame comes to fits into a channel, as a rule, so that the next stages work on one
/// while the next one is made.
const FRAME: usize = 1024 * 1024;

/// How many compressed bytes are handed on at once.
const CHUNK: usize = 128 * 1024;

/// How many chunks wait between two stages.
pub(crate) const WAITING: usize = 8;

/// An object whose bytes are all in S3, but which does not exist yet.
#[derive(Debug)]
pub(crate) struct Staged {
    upload: Upload,
    digests: Digests,
}

impl Staged {
    /// Makes the object exist.
    pub(crate) async fn complete(self) -> Result<ObjectRecord> {
        self.upload.finish(&self.digests).await
    }

    /// Gives the object up.
    pub(crate) async fn abort(self) {
        self.upload.abort().await;
    }
}

/// What the decoder proves: it reads everything, and returns what it found.
pub(crate) type Proof<T> = Box<dyn FnOnce(&mut dyn Read) -> std::result::Result<T, Stop> + Send>;

/// Moves everything that `source` sends into S3. `proof` reads the decoded bytes to their end.
pub(crate) async fn stage<S, T: Send + 'static>(
    context: &Context,
    key: String,
    source: impl AsyncFnOnce(mpsc::Sender<Bytes>) -> std::result::Result<S, Stop>,
    proof: Proof<T>,
) -> std::result::Result<(Staged, S, T), Stop> {
    let (plain, plain_chunks) = mpsc::channel(WAITING);
    let (to_upload, upload_chunks) = mpsc::channel(WAITING);
    let (to_decode, decode_chunks) = mpsc::channel(WAITING);

    let compressing =
        tokio::task::spawn_blocking(move || compress(plain_chunks, [to_upload, to_decode]));
    let decoding = tokio::task::spawn_blocking(move || decode(decode_chunks, proof));
    let mut upload = Upload::new(context, key);
    let uploading = send(&mut upload, upload_chunks);
    let (source, uploaded) = tokio::join!(source(plain), uploading);
    let (compressed, decoded) = (joined(compressing).await, joined(decoding).await);

    // A stage that fails takes the others down with it. The first in this order that failed by itself is the
    // cause: a source's early end looks to the decoder like a truncated stream.
    let result = match (uploaded, source, decoded, compressed) {
        (Err(failure), ..) | (_, Err(Stop::Failed(failure)), ..) => Err(Stop::Failed(failure)),
        (_, _, Err(Stop::Failed(failure)), _) | (.., Err(Stop::Failed(failure))) => {
            Err(Stop::Failed(failure))
        }
        (Ok(()), Ok(source), Ok(decoded), Ok(digests)) => Ok((source, decoded, digests)),
        _ => Err(Stop::Downstream),
    };
    match result {
        Ok((source, decoded, digests)) => Ok((Staged { upload, digests }, source, decoded)),
        Err(stop) => {
            upload.abort().await;
            Err(stop)
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
        .or_fail(ExitCode::Internal, || "run a stage of a stream")?
}

fn compress(
    mut chunks: mpsc::Receiver<Bytes>,
    consumers: [mpsc::Sender<Bytes>; 2],
) -> std::result::Result<Digests, Stop> {
    // One thread keeps up with any dump and needs a few MiB; several would need tens.
    let mut encoder = zstd::bulk::Compressor::new(LEVEL).map_err(unable)?;
    encoder.include_checksum(true).map_err(unable)?;
    let mut outlet = Outlet {
        encoder,
        frame: Vec::with_capacity(zstd::zstd_safe::compress_bound(FRAME)),
        consumers,
        digest: ObjectDigest::new(),
    };
    let mut plain = Vec::with_capacity(FRAME);
    while let Some(mut chunk) = chunks.blocking_recv() {
        while !chunk.is_empty() {
            if plain.len() == FRAME {
                outlet.hand_on(&plain)?;
                plain.clear();
            }
            let fits = chunk.len().min(FRAME - plain.len());
            plain.extend_from_slice(&chunk.split_to(fits));
        }
    }
    // Nothing at all is a frame, too.
    outlet.hand_on(&plain)?;
    Ok(outlet.digest.finish())
}

fn unable(error: io::Error) -> Stop {
    let failed: Result<()> = Err(error).or_fail(ExitCode::Internal, || "compress with zstd");
    failed.map_or_else(Stop::Failed, |()| Stop::Downstream)
}

/// Makes frames, digests them, and hands them to the upload and to the decoder.
struct Outlet {
    encoder: zstd::bulk::Compressor<'static>,
    /// The last frame, in memory for one that does not become smaller.
    frame: Vec<u8>,
    consumers: [mpsc::Sender<Bytes>; 2],
    digest: ObjectDigest,
}

impl Outlet {
    fn hand_on(&mut self, plain: &[u8]) -> std::result::Result<(), Stop> {
        let compressed = self.encoder.compress_to_buffer(plain, &mut self.frame);
        compressed.map_err(unable)?;
        self.digest.update(&self.frame);
        for chunk in self.frame.chunks(CHUNK) {
            let chunk = Bytes::copy_from_slice(chunk);
            for consumer in &self.consumers {
                let sent = consumer.blocking_send(chunk.clone());
                sent.map_err(|_| Stop::Downstream)?;
            }
        }
        Ok(())
    }
}

/// Decodes chunks to their end, while `proof` reads what they hold.
pub(crate) fn decode<T>(
    chunks: mpsc::Receiver<Bytes>,
    proof: Proof<T>,
) -> std::result::Result<T, Stop> {
    let doing = || "decode what was uploaded";
    let mut decoder = zstd::Decoder::new(ChunkReader {
        chunks,
        current: Bytes::new(),
    })
    .or_fail(ExitCode::Verification, doing)?;
    let found = proof(&mut decoder)?;
    // The last frame's checksum comes after its last byte.
    let rest = io::copy(&mut decoder, &mut io::sink()).or_fail(ExitCode::Verification, doing)?;
    if rest > 0 {
        let message = format!("{rest} bytes follow what was expected to be the end");
        return Err(Failure::new(ExitCode::Verification, message).into());
    }
    Ok(found)
}

/// Reads a channel's chunks as one stream.
struct ChunkReader {
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let length = self.current.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(bytes: Vec<u8>) -> (Vec<u8>, Vec<u8>, Digests) {
        let (source, plain) = mpsc::channel(WAITING);
        let (to_upload, mut uploaded) = mpsc::channel(64);
        let (to_decode, decoding) = mpsc::channel(64);
        let sending = std::thread::spawn(move || {
            // Of a length that no frame's is a multiple of.
            for chunk in bytes.chunks(100_003) {
                source.blocking_send(Bytes::copy_from_slice(chunk)).unwrap();
            }
        });
        let Ok(digests) = compress(plain, [to_upload, to_decode]) else {
            panic!("it does not compress");
        };
        sending.join().unwrap();
        let mut object = Vec::new();
        while let Some(chunk) = uploaded.blocking_recv() {
            object.extend_from_slice(&chunk);
        }
        let proof: Proof<Vec<u8>> = Box::new(|reader| {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            Ok(all)
        });
        let Ok(decoded) = decode(decoding, proof) else {
            panic!("it does not decode");
        };
        (object, decoded, digests)
    }

    #[test]
    fn frames_are_one_stream_wherever_the_source_ends() {
        for length in [0, 1, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME] {
            let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
            let (object, decoded, digests) = round(bytes.clone());
            assert!(decoded == bytes, "{length}");
            assert!(zstd::decode_all(&object[..]).unwrap() == bytes, "{length}");
            assert_eq!(digests.size, object.len() as u64);
            assert_eq!(digests.sha256, shared::checksum::digests(&object).sha256);
        }
    }
}
