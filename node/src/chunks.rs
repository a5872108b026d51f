//! Streams in chunks: a channel of chunks as a reader, and a reader's bytes as chunks.

use std::io::{self, Read};

use bytes::Bytes;
use tokio::sync::mpsc;

/// The size of a chunk of a stream that is not compressed, in bytes.
pub(crate) const CHUNK: usize = 256 * 1024;

/// Reads the chunks of a channel as one stream, on a thread where blocking is allowed.
pub(crate) struct ChunkReader {
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
    /// The bytes that must follow before the channel may be closed.
    missing: u64,
}

impl ChunkReader {
    /// Reads until the channel is closed.
    pub(crate) fn new(chunks: mpsc::Receiver<Bytes>) -> Self {
        Self::of_size(chunks, 0)
    }

    /// Reads until the channel is closed. If that happens before `size` bytes were sent, the stream ends with an error.
    pub(crate) fn of_size(chunks: mpsc::Receiver<Bytes>, size: u64) -> Self {
        Self {
            chunks,
            current: Bytes::new(),
            missing: size,
        }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => {
                    self.missing = self.missing.saturating_sub(chunk.len() as u64);
                    self.current = chunk;
                }
                None if self.missing == 0 => return Ok(0),
                None => {
                    let message = format!("the stream ended {} bytes early", self.missing);
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
                }
            }
        }
        let count = self.current.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// Reads the next chunk, of at most as many bytes as the buffer has. Returns `None` at the end.
///
/// ```ignore
/// let mut buffer = vec![0; CHUNK];
/// while let Some(chunk) = next_chunk(&mut reader, &mut buffer)? {
///     digest.update(chunk);
/// }
/// ```
pub(crate) fn next_chunk<'b>(
    reader: &mut (impl Read + ?Sized),
    buffer: &'b mut [u8],
) -> io::Result<Option<&'b [u8]>> {
    let count = reader.read(buffer)?;
    Ok((count > 0).then(|| &buffer[..count]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(chunks: &[&'static [u8]]) -> mpsc::Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(8);
        for chunk in chunks {
            sender.try_send(Bytes::from_static(chunk)).unwrap();
        }
        receiver
    }

    #[test]
    fn chunks_are_read_as_one_stream() {
        let mut reader = ChunkReader::of_size(sent(&[b"ab", b"", b"cde"]), 5);
        let mut buffer = [0; 2];
        let mut all = Vec::new();
        while let Some(chunk) = next_chunk(&mut reader, &mut buffer).unwrap() {
            all.push(String::from_utf8(chunk.to_vec()).unwrap());
        }
        assert_eq!(all, ["ab", "cd", "e"]);
    }

    #[test]
    fn a_stream_that_ends_early_is_an_error() {
        let mut reader = ChunkReader::of_size(sent(&[b"ab"]), 5);
        let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "the stream ended 3 bytes early");
    }
}
