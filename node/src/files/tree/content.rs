//! The content of a file in the archive. A file with holes is archived without them, as GNU tar's sparse format 1.0: PAX
//! records with the real size, then a list of the pieces of data, then these pieces.

use std::fs::{File, Metadata};
use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// The size of a block of a tar.
const BLOCK: usize = 512;

/// The most pieces of one file, so that their list stays small. If a file has more, its smallest holes are archived.
const MOST_PIECES: usize = 65_536;

/// Reads exactly as many bytes as the header contains. Fails if the file has fewer.
pub(super) struct Content {
    file: File,
    /// The list of the pieces, if the file has holes.
    list: Option<Cursor<Vec<u8>>>,
    pieces: std::vec::IntoIter<Range<u64>>,
    /// The rest of the piece that is being read.
    piece: Range<u64>,
    /// The size of the file, with its holes.
    real_size: u64,
    /// The size in the archive.
    pub(super) archived_size: u64,
    pub(super) ended_early: bool,
}

impl Content {
    /// Returns the content of a file up to its current size. A file that grows later, such as a log, keeps this size in
    /// the archive.
    pub(super) fn of(file: File, metadata: &Metadata) -> io::Result<Self> {
        let real_size = metadata.len();
        // Without this comparison, each of thousands of files would be searched for holes.
        let may_have_holes = metadata.blocks().saturating_mul(512) < real_size;
        let mut pieces = None;
        if may_have_holes {
            pieces = self::pieces(&file, real_size, MOST_PIECES)?;
        }
        let ended_early = pieces.is_some() && file.metadata()?.len() < real_size;
        let list = pieces.as_ref().map(|pieces| list(pieces, real_size));
        let (piece, pieces) = match pieces {
            Some(pieces) => (0..0, pieces),
            None => (0..real_size, Vec::new()),
        };
        let bytes: u64 = pieces.iter().map(|piece| piece.end - piece.start).sum();
        let list_bytes = list.as_ref().map_or(0, |list| list.len() as u64);
        Ok(Self {
            archived_size: list_bytes + bytes + piece.end,
            file,
            list: list.map(Cursor::new),
            pieces: pieces.into_iter(),
            piece,
            real_size,
            ended_early,
        })
    }

    pub(super) fn has_holes(&self) -> bool {
        self.list.is_some()
    }

    /// Returns the PAX records by which a reader recognizes a file with holes.
    pub(super) fn records(&self) -> Vec<(String, Vec<u8>)> {
        if !self.has_holes() {
            return Vec::new();
        }
        let record =
            |key: &str, value: u64| (format!("GNU.sparse.{key}"), value.to_string().into());
        vec![
            record("major", 1),
            record("minor", 0),
            record("realsize", self.real_size),
        ]
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(list) = &mut self.list {
            let length = list.read(buffer)?;
            if length > 0 {
                return Ok(length);
            }
        }
        while self.piece.is_empty() {
            match self.pieces.next() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let left = self.piece.end - self.piece.start;
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let length = self.file.read_at(&mut buffer[..most], self.piece.start)?;
        if length == 0 && most > 0 {
            self.ended_early = true;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.piece.start += length as u64;
        Ok(length)
    }
}

/// Returns where a file has data, or `None` if it has no holes or its file system cannot find them.
fn pieces(file: &File, size: u64, most: usize) -> io::Result<Option<Vec<Range<u64>>>> {
    let mut pieces: Vec<Range<u64>> = Vec::new();
    let (mut at, mut smallest_hole) = (0, 1);
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) if start < size => start,
            // A hole is at the end.
            Ok(_) | Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::NOTSUP) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        at = match seek(file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(size),
            // The file was truncated meanwhile.
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        add(&mut pieces, start..at, smallest_hole);
        while pieces.len() > most {
            smallest_hole *= 2;
            for piece in std::mem::take(&mut pieces) {
                add(&mut pieces, piece, smallest_hole);
            }
        }
    }
    let whole = pieces.first().is_some_and(|first| *first == (0..size));
    Ok((!whole).then_some(pieces))
}

/// Adds a piece. If the hole before it is smaller than the limit, the piece becomes a part of the one before it.
fn add(pieces: &mut Vec<Range<u64>>, piece: Range<u64>, smallest_hole: u64) {
    match pieces.last_mut() {
        Some(last) if piece.start - last.end < smallest_hole => last.end = piece.end,
        _ => pieces.push(piece),
    }
}

/// Returns the list of the pieces: their number, then offset and length of each, as lines. It fills whole blocks.
fn list(pieces: &[Range<u64>], real_size: u64) -> Vec<u8> {
    let mut lines = vec![];
    for piece in pieces {
        lines.extend([piece.start, piece.end - piece.start]);
    }
    if pieces.last().is_none_or(|last| last.end < real_size) {
        // GNU tar restores a hole at the end only if an empty piece follows it.
        lines.extend([real_size, 0]);
    }
    lines.insert(0, lines.len() as u64 / 2);
    let mut list: Vec<u8> = lines
        .iter()
        .flat_map(|line| format!("{line}\n").into_bytes())
        .collect();
    list.resize(list.len().next_multiple_of(BLOCK), 0);
    list
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn content(file: File, size: u64) -> Content {
        Content {
            file,
            list: None,
            pieces: Vec::new().into_iter(),
            piece: 0..size,
            real_size: size,
            archived_size: size,
            ended_early: false,
        }
    }

    #[test]
    fn a_file_that_was_truncated_is_detected() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "12345").unwrap();
        let mut shorter = content(File::open(&path).unwrap(), 6);
        let mut read = Vec::new();
        assert!(shorter.read_to_end(&mut read).is_err());
        assert!(shorter.ended_early);

        // A file that grew is read up to its former size.
        let mut longer = content(File::open(&path).unwrap(), 3);
        read.clear();
        longer.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"123");
    }

    #[test]
    fn a_file_with_too_many_holes_is_archived_without_its_largest_ones() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 24).unwrap();
        let kib = 1 << 10;
        for offset in [0, 128, 256, 1024, 1152, 8192] {
            file.write_all_at(b"data", offset * kib).unwrap();
        }
        let all = pieces(&file, 1 << 24, 6).unwrap().unwrap();
        assert_eq!(all.len(), 6);
        let fewer = pieces(&file, 1 << 24, 3).unwrap().unwrap();
        let starts: Vec<u64> = fewer.iter().map(|piece| piece.start / kib).collect();
        assert_eq!(starts, [0, 1024, 8192]);
        for piece in all {
            let is_archived = |one: &Range<u64>| one.start <= piece.start && piece.end <= one.end;
            assert!(fewer.iter().any(is_archived), "{piece:?}");
        }
    }
}
