//! The blocks of an archive: the rows of a table, other data, or large objects.

use crate::postgres::archive::error::Result;
use crate::postgres::archive::input::{Input, positive_integer};

/// The type of a block with the rows of a table or other data.
pub(super) const BLOCK_DATA: u8 = 1;
/// The type of a block with large objects.
pub(super) const BLOCK_LARGE_OBJECTS: u8 = 3;

/// What `pg_dump` appends to the rows of a table.
pub(super) const END_OF_ROWS: &[u8] = b"\\.\n\n\n";

/// Reads a block with the rows of a table and counts them. A row is a line, because COPY writes a line break within a
/// value as `\n`.
pub(super) fn count_rows(input: &mut Input<'_>) -> Result<u64> {
    let mut lines = 0;
    let mut tail = Tail::default();
    for_each_piece(input, |piece| {
        lines += memchr::memchr_iter(b'\n', piece).count() as u64;
        tail.push(piece);
    })?;
    if !tail.is(END_OF_ROWS) {
        return Err(input.damaged("the rows of a table end without the end mark"));
    }
    Ok(lines - memchr::memchr_iter(b'\n', END_OF_ROWS).count() as u64)
}

/// Reads a data block without looking at its bytes.
pub(super) fn skip_data(input: &mut Input<'_>) -> Result<()> {
    for_each_piece(input, |_| {})
}

/// Reads a block with large objects: the oid of each, then its data; the oid 0 ends it.
pub(super) fn skip_large_objects(input: &mut Input<'_>) -> Result<()> {
    while input.integer()? != 0 {
        skip_data(input)?;
    }
    Ok(())
}

/// Calls `read` with the bytes of a data block, in order.
///
/// `pg_dump` writes each row as a piece of its own, so this reads as many pieces as are buffered before it asks the
/// stream for more.
fn for_each_piece(input: &mut Input<'_>, mut read: impl FnMut(&[u8])) -> Result<()> {
    let length_size = input.encoded_integer_size();
    // Bytes of the current piece that were not read yet.
    let mut left = 0;
    while let Some(buffer) = input.block_bytes(&mut left)? {
        let mut used = 0;
        loop {
            let rest = &buffer[used..];
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
            read(&rest[..length]);
            used += length;
            left -= length as u64;
            if left > 0 {
                break;
            }
            // If the next piece's length is buffered too, go on with that piece.
            let next = buffer.get(used..used + length_size);
            let Some(length) = next.and_then(positive_integer) else {
                break;
            };
            used += length_size;
            left = length;
        }
        input.consume(used);
    }
    Ok(())
}

/// The last bytes of the pieces that were pushed.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, piece: &[u8]) {
        let kept = &piece[piece.len().saturating_sub(END_OF_ROWS.len())..];
        if kept.len() == END_OF_ROWS.len() {
            self.0.clear();
        }
        self.0.extend_from_slice(kept);
        let surplus = self.0.len().saturating_sub(END_OF_ROWS.len());
        if surplus > 0 {
            self.0.drain(..surplus);
        }
    }

    fn is(&self, bytes: &[u8]) -> bool {
        self.0 == bytes
    }
}
