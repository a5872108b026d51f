//! The bytes of an archive, and the numbers and texts that they make.

use std::io::BufRead;

use super::{ArchiveError, LONGEST_NAME, Result};

/// The stream, and how it writes numbers.
pub(super) struct Input<'r> {
    pub(super) reader: &'r mut dyn BufRead,
    /// How many bytes were read.
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

    /// Reads a sign and the bytes of a number, the lowest first.
    pub(super) fn integer(&mut self) -> Result<i64> {
        let size = 1 + usize::from(self.int_size);
        let at_hand = self.reader.fill_buf().map_err(ArchiveError::Read)?;
        if let Some(length) = at_hand.get(..size).and_then(plain_length) {
            self.reader.consume(size);
            self.at += size as u64;
            return i64::try_from(length).map_err(|_| self.malformed("a number that is too large"));
        }
        let negative = self.byte()? != 0;
        let mut number: u64 = 0;
        for index in 0..u32::from(self.int_size) {
            number |= u64::from(self.byte()?) << (8 * index);
        }
        let Ok(number) = i64::try_from(number) else {
            return Err(self.malformed("a number that is too large"));
        };
        Ok(if negative { -number } else { number })
    }

    /// Returns the length of a text; none where there is no text.
    pub(super) fn length(&mut self) -> Result<Option<u64>> {
        Ok(u64::try_from(self.integer()?).ok())
    }

    /// Reads a short text; none where there is no text.
    pub(super) fn text(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(length) = self.length()? else {
            return Ok(None);
        };
        if length > LONGEST_NAME {
            return Err(self.malformed(&format!("a name of {length} bytes")));
        }
        let mut text = Vec::new();
        for _ in 0..length {
            text.push(self.byte()?);
        }
        Ok(Some(text))
    }

    pub(super) fn text_begins_with(&mut self, beginning: &[u8]) -> Result<bool> {
        let Some(length) = self.length()? else {
            return Ok(false);
        };
        let mut same = true;
        for index in 0..length.min(beginning.len() as u64) {
            let expected = usize::try_from(index)
                .ok()
                .and_then(|index| beginning.get(index))
                .copied();
            same &= Some(self.byte()?) == expected;
        }
        self.skip(length.saturating_sub(beginning.len() as u64))?;
        Ok(same && length >= beginning.len() as u64)
    }

    /// Passes over a text of any length; tells whether there was one.
    pub(super) fn skip_text(&mut self) -> Result<bool> {
        let length = self.length()?;
        self.skip(length.unwrap_or(0))?;
        Ok(length.is_some())
    }

    pub(super) fn skip(&mut self, mut left: u64) -> Result<()> {
        while left > 0 {
            let available = self.reader.fill_buf().map_err(ArchiveError::Read)?.len();
            if available == 0 {
                return Err(self.malformed("the end within the table of contents"));
            }
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(available);
            self.reader.consume(length);
            self.at += length as u64;
            left -= length as u64;
        }
        Ok(())
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        match self.optional_byte()? {
            Some(byte) => Ok(byte),
            None => Err(self.malformed("the end within a number")),
        }
    }

    pub(super) fn optional_byte(&mut self) -> Result<Option<u8>> {
        let byte = self
            .reader
            .fill_buf()
            .map_err(ArchiveError::Read)?
            .first()
            .copied();
        if byte.is_some() {
            self.reader.consume(1);
            self.at += 1;
        }
        Ok(byte)
    }

    pub(super) fn malformed(&self, found: &str) -> ArchiveError {
        ArchiveError::Malformed(format!("the dump has, at byte {}, {found}", self.at))
    }
}

/// Reads a number as [`Input::integer`] does, where it is one above zero, as the lengths of pieces are.
pub(super) fn plain_length(number: &[u8]) -> Option<u64> {
    let (sign, bytes) = number.split_first()?;
    let mut length = [0; 8];
    length.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let length = u64::from_le_bytes(length);
    (*sign == 0 && length > 0 && i64::try_from(length).is_ok()).then_some(length)
}
