//! Makes several archives of one as it streams by, so that several `pg_restore` share a table's rows.
//!
//! Each has the whole table of contents and every promised block; only the rows are dealt out. Which of them brings a
//! row does not matter: nothing that refers to one exists before all have come.

use std::io::{self, BufReader, Read};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};

use super::input::Input;
use super::{ArchiveError, BLOCK_DATA, Contents, END_OF_COPY, Result};

/// How much of an archive is read at once, in bytes.
const BUFFER: usize = 256 * 1024;
/// How many bytes of rows one of them gets at a time, at least.
const HAND: usize = 128 * 1024;

/// The longest table of contents that is kept, in bytes: some hundred thousand tables.
const MOST_CONTENTS: usize = 512 * 1024 * 1024;

/// Reads an archive to its end. Its header and table of contents go to `opening`, as soon as they are known, and, each
/// with its own share of the rows, to all `players`. Players who have left end it without an error of its own.
pub(crate) fn deal(
    archive: impl Read,
    opening: oneshot::Sender<Bytes>,
    players: Vec<mpsc::Sender<Bytes>>,
) -> Result<()> {
    let mut recorder = Recorder {
        archive,
        recorded: Vec::new(),
    };
    let mut reader = BufReader::with_capacity(BUFFER, &mut recorder);
    let mut input = Input::new(&mut reader);
    let contents = input.contents()?;
    let (length, int_size) = (input.at, input.int_size);
    let read_ahead = reader.buffer().to_vec();
    let mut first = recorder.recorded;
    first.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    let first = Bytes::from(first);
    if opening.send(first.clone()).is_err() {
        return Ok(());
    }
    let mut table = Table {
        int_size,
        players,
        next: 0,
    };
    let mut rest = BufReader::with_capacity(BUFFER, read_ahead.chain(recorder.archive));
    let mut input = Input::new(&mut rest);
    input.int_size = int_size;
    let dealt = table
        .all(&first)
        .and_then(|()| table.blocks(&mut input, &contents));
    match dealt {
        Err(ArchiveError::Read(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        dealt => dealt,
    }
}

/// Keeps what is read.
struct Recorder<R> {
    archive: R,
    recorded: Vec<u8>,
}

impl<R: Read> Read for Recorder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.archive.read(buffer)?;
        if self.recorded.len() + length > MOST_CONTENTS {
            let problem = format!("its table of contents has more than {MOST_CONTENTS} bytes");
            return Err(io::Error::other(problem));
        }
        self.recorded.extend_from_slice(&buffer[..length]);
        Ok(length)
    }
}

/// Who gets what.
struct Table {
    int_size: u8,
    players: Vec<mpsc::Sender<Bytes>>,
    next: usize,
}

impl Table {
    fn blocks(&mut self, input: &mut Input<'_>, contents: &Contents) -> Result<()> {
        while let Some(block) = input.optional_byte()? {
            let id = input.integer()?;
            let mut beginning = BytesMut::new();
            beginning.put_u8(block);
            self.put_integer(&mut beginning, id);
            self.all(&beginning.freeze())?;
            if block == BLOCK_DATA {
                self.data(input, contents.copies.contains_key(&id))?;
            } else {
                self.large_objects(input)?;
            }
        }
        Ok(())
    }

    /// Deals a block out, if it has rows; any other goes to the first player, and the others get an empty one.
    fn data(&mut self, input: &mut Input<'_>, has_rows: bool) -> Result<()> {
        let mut hand = BytesMut::with_capacity(2 * HAND);
        let mut left = 0;
        // Who got the beginning of a row that is too long to be kept, and gets the rest of it.
        let mut holder = (!has_rows).then_some(0);
        while input.more(&mut left, &mut hand)? {
            // What could be the end of the rows is kept until more of them follows.
            let ready = hand.len().saturating_sub(END_OF_COPY.len());
            if ready < HAND {
                continue;
            }
            let rows = &hand[..ready];
            let end = match holder {
                Some(_) if has_rows => memchr::memchr(b'\n', rows),
                Some(_) => None,
                None => memchr::memrchr(b'\n', rows),
            };
            let player = holder.unwrap_or_else(|| self.whose_turn());
            let dealt = hand.split_to(end.map_or(ready, |end| end + 1));
            self.deal_to(player, &dealt)?;
            holder = (end.is_none()).then_some(player);
        }
        let ends = has_rows && hand.ends_with(END_OF_COPY);
        if ends {
            hand.truncate(hand.len() - END_OF_COPY.len());
        }
        if !hand.is_empty() {
            self.deal_to(holder.unwrap_or(0), &hand)?;
        }
        let mut closing = BytesMut::new();
        if ends {
            self.put_integer(&mut closing, i64::try_from(END_OF_COPY.len()).unwrap_or(0));
            closing.extend_from_slice(END_OF_COPY);
        }
        self.put_integer(&mut closing, 0);
        self.all(&closing.freeze())
    }

    fn large_objects(&mut self, input: &mut Input<'_>) -> Result<()> {
        loop {
            let oid = input.integer()?;
            let mut number = BytesMut::new();
            self.put_integer(&mut number, oid);
            if oid == 0 {
                return self.all(&number.freeze());
            }
            self.send(0, number.freeze())?;
            let (mut hand, mut left) = (BytesMut::new(), 0);
            while input.more(&mut left, &mut hand)? {
                self.deal_to(0, &hand.split())?;
            }
            let mut closing = BytesMut::new();
            self.put_integer(&mut closing, 0);
            self.send(0, closing.freeze())?;
        }
    }

    /// Returns who has the most room, and in doubt the next one.
    fn whose_turn(&mut self) -> usize {
        let count = self.players.len();
        self.next = (self.next + 1) % count.max(1);
        let order = (0..count).map(|step| (self.next + step) % count);
        let room = |player: &usize| self.players.get(*player).map(mpsc::Sender::capacity);
        order.rev().max_by_key(room).unwrap_or(0)
    }

    fn deal_to(&self, player: usize, bytes: &[u8]) -> Result<()> {
        let mut piece = BytesMut::with_capacity(bytes.len() + 9);
        let length = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        self.put_integer(&mut piece, length);
        piece.extend_from_slice(bytes);
        self.send(player, piece.freeze())
    }

    fn all(&self, bytes: &Bytes) -> Result<()> {
        (0..self.players.len()).try_for_each(|player| self.send(player, bytes.clone()))
    }

    fn send(&self, player: usize, bytes: Bytes) -> Result<()> {
        let sent = self
            .players
            .get(player)
            .is_some_and(|sender| sender.blocking_send(bytes).is_ok());
        if sent {
            return Ok(());
        }
        Err(ArchiveError::Read(io::ErrorKind::BrokenPipe.into()))
    }

    /// Writes a number as [`Input::integer`] reads it.
    fn put_integer(&self, bytes: &mut BytesMut, number: i64) {
        bytes.put_u8(u8::from(number < 0));
        let magnitude = number.unsigned_abs().to_le_bytes();
        let size = usize::from(self.int_size).min(magnitude.len());
        bytes.extend_from_slice(&magnitude[..size]);
    }
}

impl Input<'_> {
    /// Adds what is at hand of a block's piece, of which `left` bytes are to come; false at the block's end.
    fn more(&mut self, left: &mut u64, to: &mut BytesMut) -> Result<bool> {
        if *left == 0 {
            let length = self.integer()?;
            let Ok(length) = u64::try_from(length) else {
                return Err(self.malformed("a piece of negative length"));
            };
            if length == 0 {
                return Ok(false);
            }
            *left = length;
        }
        let at_hand = self.reader.fill_buf().map_err(ArchiveError::Read)?;
        if at_hand.is_empty() {
            return Err(self.malformed("the end within a block"));
        }
        let length = usize::try_from(*left)
            .unwrap_or(usize::MAX)
            .min(at_hand.len());
        to.extend_from_slice(&at_hand[..length]);
        self.reader.consume(length);
        self.at += length as u64;
        *left -= length as u64;
        Ok(true)
    }
}
