//! The server's tools as children: what they say goes into the log, and their end is always looked at.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::process::{ExitStatus, Stdio};

use bytes::{Bytes, BytesMut};
use shared::report::ExitCode;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::process::{self, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::watchdog::Progress;

/// How much is read from a child at once, in bytes.
const CHUNK: usize = 256 * 1024;
/// How much a child's pipe holds, in bytes: as much as Linux lets anybody ask for. With the usual 64 KiB, both sides
/// would be woken up for every few hundred rows.
const PIPE: usize = 1024 * 1024;
/// How many of a child's last lines a failure quotes.
const KEPT_LINES: usize = 8;
/// How much of one line is kept, in bytes.
const KEPT_LINE: u64 = 2_000;

/// A running program.
#[derive(Debug)]
pub(crate) struct Child {
    program: &'static str,
    code: ExitCode,
    process: process::Child,
    words: JoinHandle<String>,
}

/// Why a stage of a stream ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// By itself.
    Failed(Failure),
    /// Because the stage that it feeds did: the cause is there.
    Downstream,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Child {
    /// Starts the program; whatever goes wrong with it is a failure with `code`.
    pub(crate) fn start(
        program: &'static str,
        command: &mut Command,
        code: ExitCode,
    ) -> Result<Self> {
        let mut process = command
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .or_fail(code, || format!("start {program}"))?;
        let stderr = process.stderr.take();
        let words = tokio::spawn(async move {
            match stderr {
                Some(stderr) => relay(program, stderr).await,
                None => String::new(),
            }
        });
        Ok(Self {
            program,
            code,
            process,
            words,
        })
    }

    /// Sends what the program prints, to its end, and returns the number of bytes; the program must then end
    /// with success.
    pub(crate) async fn output_to(
        mut self,
        chunks: mpsc::Sender<Bytes>,
        progress: &Progress,
    ) -> std::result::Result<u64, Stop> {
        let mut sent = 0;
        if let Some(mut stdout) = self.process.stdout.take() {
            enlarge(&stdout);
            loop {
                let chunk = self.chunk(&mut stdout).await?;
                if chunk.is_empty() {
                    break;
                }
                sent += chunk.len() as u64;
                progress.touch();
                if chunks.send(chunk).await.is_err() {
                    return Err(Stop::Downstream);
                }
            }
        }
        self.end().await?;
        Ok(sent)
    }

    /// Feeds the program to the end of the chunks; it must then end with success.
    pub(crate) async fn input_from(
        mut self,
        mut chunks: mpsc::Receiver<Bytes>,
        progress: &Progress,
    ) -> Result<()> {
        let Some(mut stdin) = self.process.stdin.take() else {
            return self.quit().await;
        };
        enlarge(&stdin);
        while let Some(chunk) = chunks.recv().await {
            if stdin.write_all(&chunk).await.is_err() {
                // What it said on its way out is the cause.
                chunks.close();
                return self.quit().await;
            }
            progress.touch();
        }
        drop(stdin);
        self.end().await
    }

    async fn chunk(&self, stdout: &mut ChildStdout) -> Result<Bytes> {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        while chunk.len() < CHUNK {
            let read = stdout.read_buf(&mut chunk).await;
            let length = read.or_fail(self.code, || format!("read from {}", self.program))?;
            if length == 0 {
                break;
            }
        }
        Ok(chunk.freeze())
    }

    /// Waits for the end of a program that stopped reading too early, which is a failure whatever its status.
    async fn quit(mut self) -> Result<()> {
        let status = self.status().await?;
        let what = "stopped before it had read everything";
        Err(self.failure(what, status).await)
    }

    async fn end(mut self) -> Result<()> {
        let status = self.status().await?;
        if status.success() {
            return Ok(());
        }
        Err(self.failure("failed", status).await)
    }

    async fn status(&mut self) -> Result<ExitStatus> {
        let waited = self.process.wait().await;
        waited.or_fail(self.code, || format!("wait for {}", self.program))
    }

    async fn failure(self, what: &str, status: ExitStatus) -> Failure {
        let words = self.words.await.unwrap_or_default();
        let words = if words.is_empty() {
            "it said nothing"
        } else {
            &words
        };
        Failure::new(
            self.code,
            format!("{} {what} ({status}): {words}", self.program),
        )
    }
}

/// Gives a pipe more room. Where many pipes have used up what a user may have, it stays as it is.
fn enlarge(pipe: impl AsFd) {
    rustix::pipe::fcntl_setpipe_size(pipe, PIPE).ok();
}

/// Logs each line with the program's name, and returns the last ones.
async fn relay(program: &'static str, stderr: impl AsyncRead + Unpin) -> String {
    let mut lines: VecDeque<String> = VecDeque::new();
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut stderr)
            .take(KEPT_LINE)
            .read_until(b'\n', &mut line)
            .await;
        // What a program says is never worth failing for.
        if !matches!(read, Ok(1..)) {
            break;
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        tracing::info!(program, "{text}");
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(text);
    }
    Vec::from(lines).join(" | ")
}
