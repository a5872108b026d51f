//! A program while it runs: its streams, its last lines, and its end.

use std::os::fd::AsFd;
use std::process::ExitStatus;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use shared::exit_code::ExitCode;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::kept_lines::KeptLines;
use super::postgres_output::{Kind, Line, Reader};
use super::refused_entries::OVERLAP;
use super::{Program, Refused, Stop, refusals, secrets};
use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::watchdog::Progress;
use crate::chunks::CHUNK;

/// The capacity of a pipe that carries a backup, in bytes: the most that Linux allows an unprivileged process. With the
/// default of 64 KiB, both sides would wake up for every few hundred rows.
const PIPE: usize = 1024 * 1024;
/// The length at which a line is cut, in bytes.
const KEPT_LINE: u64 = 2_000;
/// How long to wait for a failed program's last lines. A daemon that the program started may hold its output open for
/// ever.
const LAST_LINES: Duration = Duration::from_secs(2);

/// A running program. It is killed when it is dropped.
#[derive(Debug)]
pub(super) struct Running {
    label: String,
    code: ExitCode,
    child: Child,
    input: Option<Vec<u8>>,
    quiet: bool,
    is_postgres: bool,
    lines: KeptLines,
    relays: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts the program.
    pub(super) fn start(mut program: Program, code: ExitCode) -> Result<Self> {
        let label = program.label;
        let mut child = program
            .command
            .spawn()
            .or_fail(code, || format!("cannot start {label}"))?;
        let stderr = child.stderr.take();
        let mut running = Self {
            label,
            code,
            child,
            input: program.input,
            quiet: program.quiet,
            is_postgres: program.is_postgres,
            lines: KeptLines::default(),
            relays: Vec::new(),
        };
        running.relay(stderr);
        Ok(running)
    }

    /// Relays standard output into the log, as standard error always is.
    pub(super) fn relay_stdout(&mut self) {
        let stdout = self.child.stdout.take();
        self.relay(stdout);
    }

    fn relay(&mut self, stream: Option<impl AsyncRead + Unpin + Send + 'static>) {
        if let Some(stream) = stream {
            let relay = Relay {
                program: self.label.clone(),
                quiet: self.quiet,
                lines: self.lines.clone(),
                postgres: self.is_postgres.then(Reader::default),
            };
            self.relays.push(tokio::spawn(relay.run(stream)));
        }
    }

    /// Writes the input and closes it. If the program ends early, its exit status and its last lines give the reason.
    pub(super) async fn write_input(&mut self) {
        if let (Some(mut stdin), Some(input)) = (self.child.stdin.take(), self.input.take()) {
            stdin.write_all(&input).await.ok();
        }
    }

    /// Writes the input, and returns the standard output.
    pub(super) async fn answer(&mut self) -> Result<Vec<u8>> {
        let mut output = Vec::new();
        let stdout = self.child.stdout.take();
        let reading = async {
            match stdout {
                Some(mut stdout) => stdout.read_to_end(&mut output).await,
                None => Ok(0),
            }
        };
        // A program may write before it has read all of its input. So this writes and reads at the same time.
        let ((), read) = tokio::join!(self.write_input(), reading);
        read.or_fail(self.code, || format!("cannot read from {}", self.label))?;
        Ok(output)
    }

    /// Writes all chunks to standard input. Returns `false` if the program did not read to their end.
    pub(super) async fn write_chunks(
        &mut self,
        chunks: &mut mpsc::Receiver<Bytes>,
        progress: &Progress,
    ) -> bool {
        let Some(mut stdin) = self.child.stdin.take() else {
            return false;
        };
        enlarge(&stdin);
        while let Some(chunk) = chunks.recv().await {
            if stdin.write_all(&chunk).await.is_err() {
                return false;
            }
            progress.touch();
        }
        true
    }

    /// Sends the standard output in chunks, and returns their number of bytes.
    pub(super) async fn send_stdout(
        &mut self,
        chunks: &mpsc::Sender<Bytes>,
        progress: &Progress,
    ) -> std::result::Result<u64, Stop> {
        let Some(mut stdout) = self.child.stdout.take() else {
            return Ok(0);
        };
        enlarge(&stdout);
        let mut sent = 0;
        loop {
            let chunk = self.chunk(&mut stdout).await?;
            if chunk.is_empty() {
                return Ok(sent);
            }
            sent += chunk.len() as u64;
            progress.touch();
            if chunks.send(chunk).await.is_err() {
                return Err(Stop::Downstream);
            }
        }
    }

    /// Reads a full chunk, or what is left before the end.
    async fn chunk(&self, stdout: &mut (impl AsyncRead + Unpin)) -> Result<Bytes> {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        while chunk.len() < CHUNK {
            let read = stdout.read_buf(&mut chunk).await;
            if read.or_fail(self.code, || format!("cannot read from {}", self.label))? == 0 {
                break;
            }
        }
        Ok(chunk.freeze())
    }

    /// Waits for the end of a program that stopped reading, and returns its failure, even if its status is 0.
    pub(super) async fn ended_early(mut self) -> Failure {
        match self.status().await {
            Ok(status) => {
                let what = "ended before it had read all of its input";
                self.failure(what, status).await
            }
            Err(failure) => failure,
        }
    }

    /// Waits for the end, which must be a success.
    pub(super) async fn end(mut self) -> Result<()> {
        let status = self.status().await?;
        if status.success() {
            return Ok(());
        }
        Err(self.failure("failed", status).await)
    }

    /// Waits for the end of a `pg_restore`. If it went on to the end of the archive, returns the entries that the server
    /// refused.
    pub(super) async fn end_of_restore(mut self) -> Result<Option<Refused>> {
        let status = self.status().await?;
        if status.success() {
            return Ok(None);
        }
        // Without a time limit: no entry may be missed. A pg_restore leaves no process behind that holds its output.
        self.read_all_lines().await;
        let refused = self.lines.refused();
        let failure = self.failure("failed", status).await;
        if !refused.complete || refused.lost_session {
            return Err(failure);
        }
        let entries = refused.entries;
        Ok(Some(Refused { entries, failure }))
    }

    async fn read_all_lines(&mut self) {
        for relay in std::mem::take(&mut self.relays) {
            relay.await.ok();
        }
    }

    async fn status(&mut self) -> Result<ExitStatus> {
        let waited = self.child.wait().await;
        waited.or_fail(self.code, || format!("cannot wait for {}", self.label))
    }

    async fn failure(mut self, what: &str, status: ExitStatus) -> Failure {
        timeout(LAST_LINES, self.read_all_lines()).await.ok();
        let lines = self.lines.text();
        let lines = if lines.is_empty() {
            "no output on stderr"
        } else {
            &lines
        };
        let message = format!("{} {what} ({status}): {lines}", self.label);
        match self.lines.error() {
            Some(error) if self.is_postgres => refusals::failure(self.code, &error, message),
            _ => Failure::new(self.code, message),
        }
    }
}

/// Enlarges a pipe to [`PIPE`] bytes. If the user's quota for pipes is used up, the pipe keeps its capacity.
fn enlarge(pipe: impl AsFd) {
    rustix::pipe::fcntl_setpipe_size(pipe, PIPE).ok();
}

/// Logs each line with the program's name, and keeps those that a failure quotes.
#[derive(Debug)]
struct Relay {
    program: String,
    quiet: bool,
    lines: KeptLines,
    /// Reads a program of Postgres; `None` for another program.
    postgres: Option<Reader>,
}

impl Relay {
    async fn run(mut self, stream: impl AsyncRead + Unpin) {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        let mut continued = false;
        // The end of the previous part of a long line.
        let mut before = String::new();
        loop {
            line.clear();
            let read = (&mut stream)
                .take(KEPT_LINE)
                .read_until(b'\n', &mut line)
                .await;
            // Unreadable output is no reason to fail: the exit status counts.
            if !matches!(read, Ok(1..)) {
                return;
            }
            let text = String::from_utf8_lossy(&line);
            if self.postgres.is_some() {
                self.lines.read_refused(&format!("{before}{text}"));
                let kept = text.char_indices().rev().nth(OVERLAP - 1);
                text[kept.map_or(0, |(at, _)| at)..].clone_into(&mut before);
                if line.ends_with(b"\n") {
                    before.clear();
                }
            }
            if let Some(line) = self.shown(text.trim_end(), continued) {
                self.log(&line);
                self.lines.add(line);
            }
            continued = !line.ends_with(b"\n");
        }
    }

    /// Returns what to show of a line, or of the next part of a long one.
    fn shown(&mut self, text: &str, continued: bool) -> Option<Line> {
        match &mut self.postgres {
            Some(reader) if continued => {
                reader.skip();
                None
            }
            Some(reader) => reader.read(text),
            None => Some(Line {
                kind: Kind::Other,
                text: secrets::hide(text),
            }),
        }
    }

    fn log(&self, line: &Line) {
        let (program, text) = (&self.program, &line.text);
        if self.quiet || line.kind == Kind::Progress {
            tracing::debug!(program, "{text}");
        } else {
            tracing::info!(program, "{text}");
        }
    }
}
