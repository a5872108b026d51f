//! Splits an archive into several while it is read, so that several `pg_restore` can load one table's rows.
//!
//! Each part has the whole table of contents and every block, but only some of the rows. It does not matter which part
//! has a row: indexes and constraints are created after all rows are loaded.

use std::io::{self, BufReader, Read};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};

use crate::chunks::CHUNK;
use crate::postgres::archive::blocks::{BLOCK_DATA, END_OF_ROWS};
use crate::postgres::archive::error::{ArchiveError, Result};
use crate::postgres::archive::input::Input;
use crate::postgres::archive::table_of_contents::TableOfContents;

/// The minimum number of bytes of rows that are sent to a part at once.
const MIN_ROWS: usize = 128 * 1024;

/// The longest table of contents that is kept, in bytes: some hundred thousand tables.
const MOST_CONTENTS: usize = 512 * 1024 * 1024;

/// The statement of an archive that clears the search path.
const CLEARS_SEARCH_PATH: &[u8] = b"SELECT pg_catalog.set_config('search_path', '', false);";
/// The statement that brings back the search path with which the session began.
const RESETS_SEARCH_PATH: &[u8] = b"RESET search_path;";

/// Reads an archive to its end and splits it into `parts`. The header and the table of contents go to `head` as soon as
/// they are read, and also to every part. If `keep_search_path`, the sessions of the parts keep their own search path.
///
/// If a receiver is dropped, this stops without an error: the receiver's own failure is the cause.
pub(crate) fn split(
    archive: impl Read,
    head: oneshot::Sender<Bytes>,
    parts: Vec<mpsc::Sender<Bytes>>,
    keep_search_path: bool,
) -> Result<()> {
    let mut recorder = Recorder {
        archive,
        recorded: Vec::new(),
    };
    let mut reader = BufReader::with_capacity(CHUNK, &mut recorder);
    let mut input = Input::new(&mut reader);
    let contents = TableOfContents::read(&mut input)?;
    let (length, int_size) = (input.at, input.int_size);
    let read_ahead = reader.buffer().to_vec();
    let mut bytes = recorder.recorded;
    bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    if head.send(Bytes::copy_from_slice(&bytes)).is_err() {
        return Ok(());
    }
    if keep_search_path && let Some(at) = memchr::memmem::find(&bytes, CLEARS_SEARCH_PATH) {
        // Another statement of the same length, so that no length in the archive changes. pg_restore itself clears the
        // search path, too, so it must be set again.
        let statement = &mut bytes[at..at + CLEARS_SEARCH_PATH.len()];
        statement.fill(b' ');
        statement[..RESETS_SEARCH_PATH.len()].copy_from_slice(RESETS_SEARCH_PATH);
    }
    let bytes = Bytes::from(bytes);
    let mut splitter = Splitter {
        int_size,
        parts,
        next: 0,
    };
    let mut rest = BufReader::with_capacity(CHUNK, read_ahead.chain(recorder.archive));
    let mut input = Input::new(&mut rest);
    input.int_size = int_size;
    let result = splitter
        .send_to_all(&bytes)
        .and_then(|()| splitter.blocks(&mut input, &contents));
    match result {
        Err(ArchiveError::Read(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Records the bytes that are read.
struct Recorder<R> {
    archive: R,
    recorded: Vec<u8>,
}

impl<R: Read> Read for Recorder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.archive.read(buffer)?;
        if self.recorded.len() + length > MOST_CONTENTS {
            let problem = format!("the table of contents has more than {MOST_CONTENTS} bytes");
            return Err(io::Error::other(problem));
        }
        self.recorded.extend_from_slice(&buffer[..length]);
        Ok(length)
    }
}

/// Writes the parts.
struct Splitter {
    int_size: u8,
    parts: Vec<mpsc::Sender<Bytes>>,
    /// The part that gets the next rows if all have equal room.
    next: usize,
}

impl Splitter {
    fn blocks(&mut self, input: &mut Input<'_>, contents: &TableOfContents) -> Result<()> {
        while let Some(block) = input.optional_byte()? {
            let id = input.integer()?;
            let mut beginning = BytesMut::new();
            beginning.put_u8(block);
            self.put_integer(&mut beginning, id);
            self.send_to_all(&beginning.freeze())?;
            if block == BLOCK_DATA {
                self.data(input, contents.table_data.contains_key(&id))?;
            } else {
                self.large_objects(input)?;
            }
        }
        Ok(())
    }

    /// Distributes the rows of a block. A block without rows goes to the first part; the others get an empty block.
    fn data(&mut self, input: &mut Input<'_>, has_rows: bool) -> Result<()> {
        let mut buffer = BytesMut::with_capacity(2 * MIN_ROWS);
        let mut left = 0;
        // The part that must get the next bytes: it has the beginning of a row that is too long for the buffer.
        let mut fixed = (!has_rows).then_some(0);
        while read_more(input, &mut left, &mut buffer)? {
            // The last bytes may be the end mark, which is sent to all parts, so they wait until more bytes follow.
            let ready = buffer.len().saturating_sub(END_OF_ROWS.len());
            if ready < MIN_ROWS {
                continue;
            }
            let rows = &buffer[..ready];
            let end = match fixed {
                Some(_) if has_rows => memchr::memchr(b'\n', rows),
                Some(_) => None,
                None => memchr::memrchr(b'\n', rows),
            };
            let part = fixed.unwrap_or_else(|| self.next_part());
            let rows = buffer.split_to(end.map_or(ready, |end| end + 1));
            self.send_piece(part, &rows)?;
            fixed = (end.is_none()).then_some(part);
        }
        let has_end_mark = has_rows && buffer.ends_with(END_OF_ROWS);
        if has_end_mark {
            buffer.truncate(buffer.len() - END_OF_ROWS.len());
        }
        if !buffer.is_empty() {
            self.send_piece(fixed.unwrap_or(0), &buffer)?;
        }
        let mut end = BytesMut::new();
        if has_end_mark {
            self.put_integer(&mut end, i64::try_from(END_OF_ROWS.len()).unwrap_or(0));
            end.extend_from_slice(END_OF_ROWS);
        }
        self.put_integer(&mut end, 0);
        self.send_to_all(&end.freeze())
    }

    /// Sends large objects to the first part.
    fn large_objects(&mut self, input: &mut Input<'_>) -> Result<()> {
        loop {
            let oid = input.integer()?;
            let mut number = BytesMut::new();
            self.put_integer(&mut number, oid);
            if oid == 0 {
                return self.send_to_all(&number.freeze());
            }
            self.send(0, number.freeze())?;
            let (mut buffer, mut left) = (BytesMut::new(), 0);
            while read_more(input, &mut left, &mut buffer)? {
                self.send_piece(0, &buffer.split())?;
            }
            let mut end = BytesMut::new();
            self.put_integer(&mut end, 0);
            self.send(0, end.freeze())?;
        }
    }

    /// Returns the part with the most room in its channel. If several have equal room, returns them in turn.
    fn next_part(&mut self) -> usize {
        let count = self.parts.len();
        self.next = (self.next + 1) % count.max(1);
        let order = (0..count).map(|step| (self.next + step) % count);
        let room = |part: &usize| self.parts.get(*part).map(mpsc::Sender::capacity);
        order.rev().max_by_key(room).unwrap_or(0)
    }

    /// Sends bytes of a data block, after their length.
    fn send_piece(&self, part: usize, bytes: &[u8]) -> Result<()> {
        let mut piece = BytesMut::with_capacity(bytes.len() + 9);
        let length = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        self.put_integer(&mut piece, length);
        piece.extend_from_slice(bytes);
        self.send(part, piece.freeze())
    }

    fn send_to_all(&self, bytes: &Bytes) -> Result<()> {
        (0..self.parts.len()).try_for_each(|part| self.send(part, bytes.clone()))
    }

    fn send(&self, part: usize, bytes: Bytes) -> Result<()> {
        let sent = self
            .parts
            .get(part)
            .is_some_and(|sender| sender.blocking_send(bytes).is_ok());
        if sent {
            return Ok(());
        }
        Err(ArchiveError::Read(io::ErrorKind::BrokenPipe.into()))
    }

    /// Encodes a number as [`Input::integer`] decodes it.
    fn put_integer(&self, bytes: &mut BytesMut, number: i64) {
        bytes.put_u8(u8::from(number < 0));
        let magnitude = number.unsigned_abs().to_le_bytes();
        let size = usize::from(self.int_size).min(magnitude.len());
        bytes.extend_from_slice(&magnitude[..size]);
    }
}

/// Appends the next buffered bytes of a data block to `buffer`. Returns `false` at the block's end.
fn read_more(input: &mut Input<'_>, left: &mut u64, buffer: &mut BytesMut) -> Result<bool> {
    let Some(bytes) = input.block_bytes(left)? else {
        return Ok(false);
    };
    let length = usize::try_from(*left)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    buffer.extend_from_slice(&bytes[..length]);
    input.consume(length);
    *left -= length as u64;
    Ok(true)
}
