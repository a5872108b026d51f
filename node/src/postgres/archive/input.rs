//! The bytes of an archive, and the numbers and texts in them.

use std::io::BufRead;

use crate::postgres::archive::error::{ArchiveError, Result};

/// The longest name that is read, in bytes. A relation's name has at most 63 bytes; a function's name includes the
/// types of its arguments.
const LONGEST_NAME: u64 = 64 * 1024;

/// The longest statement that is read, in bytes.
const LONGEST_STATEMENT: u64 = 256 * 1024 * 1024;

/// An archive as a stream, and the sizes of its numbers.
pub(super) struct Input<'r> {
    pub(super) reader: &'r mut dyn BufRead,
    /// The number of bytes that were read.
    pub(super) at: u64,
    pub(super) int_size: u8,
    pub(super) offset_size: u8,
}

impl<'r> Input<'r> {
    pub(super) fn new(reader: &'r mut dyn BufRead) -> Self {
        Self {
            reader,
            at: 0,
            int_size: 4,
            offset_size: 8,
        }
    }

    /// Reads a number: a sign, then its bytes, the lowest first.
    pub(super) fn integer(&mut self) -> Result<i64> {
        let size = self.encoded_integer_size();
        let buffer = self.reader.fill_buf().map_err(ArchiveError::Read)?;
        if let Some(number) = buffer.get(..size).and_then(positive_integer) {
            self.consume(size);
            return i64::try_from(number).map_err(|_| self.damaged("a number is too large"));
        }
        let negative = self.byte()? != 0;
        let mut number: u64 = 0;
        for index in 0..u32::from(self.int_size) {
            number |= u64::from(self.byte()?) << (8 * index);
        }
        let Ok(number) = i64::try_from(number) else {
            return Err(self.damaged("a number is too large"));
        };
        Ok(if negative { -number } else { number })
    }

    /// Returns the number of bytes that a number takes in the stream.
    pub(super) fn encoded_integer_size(&self) -> usize {
        1 + usize::from(self.int_size)
    }

    /// Reads the length of a text. Returns `None` if there is no text.
    pub(super) fn length(&mut self) -> Result<Option<u64>> {
        Ok(u64::try_from(self.integer()?).ok())
    }

    /// Reads a short text. Returns `None` if there is no text.
    pub(super) fn text(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(length) = self.length()? else {
            return Ok(None);
        };
        if length > LONGEST_NAME {
            return Err(self.damaged(&format!("a name has {length} bytes (limit {LONGEST_NAME})")));
        }
        let mut text = Vec::new();
        for _ in 0..length {
            text.push(self.byte()?);
        }
        Ok(Some(text))
    }

    /// Reads a statement. Returns `None` if there is none.
    pub(super) fn statement(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(length) = self.length()? else {
            return Ok(None);
        };
        if length > LONGEST_STATEMENT {
            let problem = format!("a statement has {length} bytes (limit {LONGEST_STATEMENT})");
            return Err(self.damaged(&problem));
        }
        let mut text = Vec::new();
        while (text.len() as u64) < length {
            let buffer = self.reader.fill_buf().map_err(ArchiveError::Read)?;
            let left = usize::try_from(length - text.len() as u64).unwrap_or(usize::MAX);
            let taken = buffer.len().min(left);
            if taken == 0 {
                return Err(self.truncated("a statement"));
            }
            text.extend_from_slice(&buffer[..taken]);
            self.consume(taken);
        }
        Ok(Some(text))
    }

    /// Reads a text of any length. Returns whether it begins with `prefix`.
    pub(super) fn text_begins_with(&mut self, prefix: &[u8]) -> Result<bool> {
        let Some(length) = self.length()? else {
            return Ok(false);
        };
        let mut same = true;
        for index in 0..length.min(prefix.len() as u64) {
            let expected = usize::try_from(index)
                .ok()
                .and_then(|index| prefix.get(index))
                .copied();
            same &= Some(self.byte()?) == expected;
        }
        self.skip(length.saturating_sub(prefix.len() as u64))?;
        Ok(same && length >= prefix.len() as u64)
    }

    /// Skips a text of any length. Returns whether there was one.
    pub(super) fn skip_text(&mut self) -> Result<bool> {
        let length = self.length()?;
        self.skip(length.unwrap_or(0))?;
        Ok(length.is_some())
    }

    pub(super) fn skip(&mut self, mut left: u64) -> Result<()> {
        while left > 0 {
            let buffered = self.reader.fill_buf().map_err(ArchiveError::Read)?.len();
            if buffered == 0 {
                return Err(self.truncated("the table of contents"));
            }
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffered);
            self.consume(length);
            left -= length as u64;
        }
        Ok(())
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        match self.optional_byte()? {
            Some(byte) => Ok(byte),
            None => Err(self.truncated("a number")),
        }
    }

    /// Reads one byte. Returns `None` at the end of the stream.
    pub(super) fn optional_byte(&mut self) -> Result<Option<u8>> {
        let byte = self
            .reader
            .fill_buf()
            .map_err(ArchiveError::Read)?
            .first()
            .copied();
        if byte.is_some() {
            self.consume(1);
        }
        Ok(byte)
    }

    /// Returns the buffered bytes of a data block, without consuming them, or `None` at the block's end.
    ///
    /// A data block is a sequence of pieces, each after its length; the length 0 ends it. `left` is the number of bytes
    /// of the current piece that were not consumed yet: 0 before the first call. The bytes can reach beyond the piece.
    pub(super) fn block_bytes(&mut self, left: &mut u64) -> Result<Option<&[u8]>> {
        if *left == 0 {
            let length = self.integer()?;
            let Ok(length) = u64::try_from(length) else {
                return Err(self.damaged("a piece of a data block has a negative length"));
            };
            if length == 0 {
                return Ok(None);
            }
            *left = length;
        }
        let at = self.at;
        let buffer = self.reader.fill_buf().map_err(ArchiveError::Read)?;
        if buffer.is_empty() {
            return Err(truncated("a data block", at));
        }
        Ok(Some(buffer))
    }

    pub(super) fn consume(&mut self, length: usize) {
        self.reader.consume(length);
        self.at += length as u64;
    }

    pub(super) fn damaged(&self, problem: &str) -> ArchiveError {
        ArchiveError::Malformed(format!(
            "the dump is damaged: {problem} at byte {}",
            self.at
        ))
    }

    pub(super) fn truncated(&self, place: &str) -> ArchiveError {
        truncated(place, self.at)
    }
}

fn truncated(place: &str, at: u64) -> ArchiveError {
    ArchiveError::Malformed(format!(
        "the dump is truncated: unexpected end of file in {place} at byte {at}"
    ))
}

/// Returns the value of an encoded number if it is above zero, as the lengths of pieces are.
pub(super) fn positive_integer(encoded: &[u8]) -> Option<u64> {
    let (sign, bytes) = encoded.split_first()?;
    let mut number = [0; 8];
    number.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let number = u64::from_le_bytes(number);
    (*sign == 0 && number > 0 && i64::try_from(number).is_ok()).then_some(number)
}
