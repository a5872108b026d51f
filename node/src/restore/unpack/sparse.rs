//! Files with holes: GNU tar's sparse format 1.0. The content begins with a list of the pieces of data: their number, then
//! offset and length of each, as lines that fill whole blocks.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::chunks::CHUNK;
use crate::restore::unpack::disk::Meter;
use crate::restore::unpack::error::{Result, UnpackError};
use crate::restore::unpack::headers::{Record, value};

/// The size of a block of a tar.
const BLOCK: usize = 512;

/// The most pieces of a file that are read.
const MOST_PIECES: u64 = 1024 * 1024;

/// Returns the size of a file with holes, or `None` if the records describe another entry.
pub(super) fn real_size(records: &[Record]) -> Option<u64> {
    let number = |key| std::str::from_utf8(value(records, key)?).ok()?.parse().ok();
    match (number("GNU.sparse.major"), number("GNU.sparse.minor")) {
        (Some(1), Some(0)) => number("GNU.sparse.realsize"),
        _ => None,
    }
}

/// Writes the pieces of data into an empty file of this size. Returns the number of bytes in the archive.
pub(super) fn write(
    name: &Path,
    (path, file): (&Path, &File),
    content: &mut impl Read,
    real_size: u64,
    meter: &Meter,
) -> Result<u64> {
    let failed = |source: io::Error| UnpackError::write(path, source);
    file.set_len(real_size).map_err(failed)?;
    let mut list = List {
        content,
        block: [0; BLOCK],
        at: BLOCK,
        read: 0,
    };
    let malformed = || UnpackError::refused(name, "has a malformed list of its data");
    let count = list.number()?.filter(|count| *count <= MOST_PIECES);
    let mut pieces = Vec::new();
    for _ in 0..count.ok_or_else(malformed)? {
        let piece = list.number()?.zip(list.number()?);
        pieces.push(piece.ok_or_else(malformed)?);
    }
    let mut read = list.read;
    let mut buffer = vec![0; CHUNK];
    let mut free = 0;
    for (offset, length) in pieces {
        let end = offset.checked_add(length).filter(|end| *end <= real_size);
        let end = end.filter(|_| offset >= free).ok_or_else(malformed)?;
        let mut at = offset;
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let chunk = &mut buffer[..most];
            content.read_exact(chunk).map_err(UnpackError::Read)?;
            file.write_all_at(chunk, at).map_err(failed)?;
            meter.add(most);
            at += most as u64;
        }
        read += length;
        free = end;
    }
    Ok(read)
}

/// Reads the list of pieces.
struct List<'c, R> {
    content: &'c mut R,
    block: [u8; BLOCK],
    /// The next byte of the block.
    at: usize,
    /// How many bytes of the content were read.
    read: u64,
}

impl<R: Read> List<'_, R> {
    /// Reads a line. Returns its number, or `None` if it is no number.
    fn number(&mut self) -> Result<Option<u64>> {
        let mut number: Option<u64> = None;
        loop {
            if self.at == BLOCK {
                let block = &mut self.block;
                self.content.read_exact(block).map_err(UnpackError::Read)?;
                self.read += BLOCK as u64;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            let digit = match byte {
                b'\n' => return Ok(number),
                b'0'..=b'9' => u64::from(byte - b'0'),
                _ => return Ok(None),
            };
            let larger = number.unwrap_or(0).checked_mul(10);
            number = match larger.and_then(|larger| larger.checked_add(digit)) {
                Some(number) => Some(number),
                None => return Ok(None),
            };
        }
    }
}
