//! Runs other programs: the tools of Postgres, the container engine, and the application's own commands.
//!
//! Every child process of the agent is started here. For each of them the environment is explicit, the child is killed
//! when its future is dropped, stderr goes into the log line by line, and the exit status is checked.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use shared::report::ExitCode;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::process::{self, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::watchdog::Progress;

/// The variables of the agent's own environment that a program gets: they locate files and servers. AWS credentials
/// are not among them.
const KEPT_VARIABLES: [&str; 12] = [
    "PATH",
    "HOME",
    "TZ",
    "REKINDLE_ROOT",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "PGPASSFILE",
    "PGPASSWORD",
    "PGSSLMODE",
    "PGSSLROOTCERT",
];

/// The size of a chunk of output, in bytes.
const CHUNK: usize = 256 * 1024;
/// The capacity of a pipe that carries a backup, in bytes: the most that Linux allows an unprivileged process. With the
/// default of 64 KiB, both sides would wake up for every few hundred rows.
const PIPE: usize = 1024 * 1024;
/// The number of last lines that a failure quotes.
const KEPT_LINES: usize = 8;
/// The length at which a line is cut, in bytes.
const KEPT_LINE: u64 = 2_000;
/// How long a failed program's last lines are waited for. A daemon that it started may hold its output open for ever.
const LAST_LINES: Duration = Duration::from_secs(2);

/// A program to run.
///
/// Build it, then run it once in one of four ways. Each of them fails with the given exit code if the program cannot be
/// started, does not end in time, or ends with another status than 0; the failure quotes its last lines.
///
/// ```ignore
/// // Runs to its end; what it prints goes into the log.
/// Program::new("docker").args(["tag", id, name]).run(ExitCode::Internal).await?;
///
/// // Returns what it prints. `quiet` keeps a polled program's lines out of the log.
/// let version = Program::new("pg_dump").args(["--version"]).output(ExitCode::Dump).await?;
/// let rows = postgres.tool("psql").input(script).quiet().output(ExitCode::Restore).await?;
///
/// // Streams: out of one program and into another. Both futures must be driven at the same time.
/// let (sender, chunks) = mpsc::channel(8);
/// let dump = Program::new("pg_dump").stdout_to(sender, progress, ExitCode::Dump);
/// let check = Program::new("pg_restore").stdin_from(chunks, progress, ExitCode::Verification);
/// let (dumped, checked) = tokio::join!(dump, check);
/// ```
#[derive(Debug)]
pub(crate) struct Program {
    label: String,
    command: Command,
    input: Option<Vec<u8>>,
    limit: Option<Duration>,
    quiet: bool,
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

impl Stop {
    /// Returns the failure that ended the stream. A stage stops because of another only after that one's failure; if
    /// there is none, the agent has a defect.
    pub(crate) fn into_failure(self) -> Failure {
        match self {
            Self::Failed(failure) => failure,
            Self::Downstream => Failure::new(
                ExitCode::Internal,
                "a stage of the stream ended without a cause",
            ),
        }
    }
}

impl Program {
    /// Prepares a program with the parts of the environment that a tool needs, and without AWS credentials.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut this = Self::with_agent_environment(program);
        let kept = std::env::vars_os()
            .filter(|(name, _)| KEPT_VARIABLES.iter().any(|variable| name == variable));
        this.command.env_clear().envs(kept);
        this
    }

    /// Prepares a program with the agent's whole environment, as the application's own commands expect it.
    pub(crate) fn with_agent_environment(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref();
        let mut command = Command::new(program);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Self {
            label: program.to_string_lossy().into_owned(),
            command,
            input: None,
            limit: None,
            quiet: false,
        }
    }

    /// Sets the name in failures and in the log, such as `docker load`. It is the program's own unless set.
    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Adds an argument.
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub(crate) fn args(mut self, arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets a variable of the environment.
    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl Into<OsString>) -> Self {
        self.command.env(name, value.into());
        self
    }

    /// Sets the bytes that [`Self::run`] and [`Self::output`] write to standard input; it is empty unless set.
    pub(crate) fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self.command.stdin(Stdio::piped());
        self
    }

    /// Ends the program after this time, as a failure.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Logs its lines for debugging only: a failure quotes them anyway.
    pub(crate) fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Runs the program to its end. Its standard output goes into the log like its standard error.
    pub(crate) async fn run(self, code: ExitCode) -> Result<()> {
        let (mut process, limit) = self.start(code)?;
        limit
            .apply(async {
                process.relay_stdout();
                process.write_input().await;
                process.end().await
            })
            .await
    }

    /// Runs the program to its end, and returns its standard output.
    pub(crate) async fn output(self, code: ExitCode) -> Result<Vec<u8>> {
        let (mut process, limit) = self.start(code)?;
        limit
            .apply(async {
                let stdout = process.child.stdout.take();
                let mut output = Vec::new();
                let reading = async {
                    match stdout {
                        Some(mut stdout) => stdout.read_to_end(&mut output).await,
                        None => Ok(0),
                    }
                };
                // A program answers while it reads: neither side may wait for the end of the other.
                let ((), read) = tokio::join!(process.write_input(), reading);
                read.or_fail(code, || format!("read from {}", process.label))?;
                process.end().await?;
                Ok(output)
            })
            .await
    }

    /// Runs the program to its end, sends its standard output in chunks, and returns their number of bytes.
    pub(crate) async fn stdout_to(
        self,
        chunks: mpsc::Sender<Bytes>,
        progress: &Progress,
        code: ExitCode,
    ) -> std::result::Result<u64, Stop> {
        let (mut process, limit) = self.start(code)?;
        limit
            .apply(async {
                let sent = process.send_stdout(&chunks, progress).await?;
                drop(chunks);
                process.end().await?;
                Ok(sent)
            })
            .await
    }

    /// Runs the program to its end, with the chunks as its standard input. If it ends before it has read all of them, it
    /// has failed, whatever its status.
    pub(crate) async fn stdin_from(
        mut self,
        mut chunks: mpsc::Receiver<Bytes>,
        progress: &Progress,
        code: ExitCode,
    ) -> Result<()> {
        self.command.stdin(Stdio::piped());
        let (mut process, limit) = self.start(code)?;
        limit
            .apply(async {
                process.relay_stdout();
                if process.write_chunks(&mut chunks, progress).await {
                    process.end().await
                } else {
                    chunks.close();
                    process.ended_early().await
                }
            })
            .await
    }

    fn start(mut self, code: ExitCode) -> Result<(Process, Limit)> {
        let limit = Limit {
            duration: self.limit,
            label: self.label.clone(),
            code,
        };
        let mut child = self
            .command
            .spawn()
            .or_fail(code, || format!("start {}", self.label))?;
        let stderr = child.stderr.take();
        let mut process = Process {
            label: self.label,
            code,
            child,
            input: self.input,
            quiet: self.quiet,
            lines: LastLines::default(),
            relays: Vec::new(),
        };
        process.relay(stderr);
        Ok((process, limit))
    }
}

/// The time that a program may take.
struct Limit {
    duration: Option<Duration>,
    label: String,
    code: ExitCode,
}

impl Limit {
    async fn apply<T, E: From<Failure>>(
        self,
        work: impl Future<Output = std::result::Result<T, E>>,
    ) -> std::result::Result<T, E> {
        let Some(duration) = self.duration else {
            return work.await;
        };
        match timeout(duration, work).await {
            Ok(done) => done,
            Err(_) => {
                let (label, seconds) = (self.label, duration.as_secs());
                let message = format!("{label} was killed: it did not end within {seconds} s");
                Err(Failure::new(self.code, message).into())
            }
        }
    }
}

/// A running program. It is killed when it is dropped.
#[derive(Debug)]
struct Process {
    label: String,
    code: ExitCode,
    child: process::Child,
    input: Option<Vec<u8>>,
    quiet: bool,
    lines: LastLines,
    relays: Vec<JoinHandle<()>>,
}

impl Process {
    fn relay_stdout(&mut self) {
        let stdout = self.child.stdout.take();
        self.relay(stdout);
    }

    fn relay(&mut self, stream: Option<impl AsyncRead + Unpin + Send + 'static>) {
        if let Some(stream) = stream {
            let relay = relay(self.label.clone(), stream, self.lines.clone(), self.quiet);
            self.relays.push(tokio::spawn(relay));
        }
    }

    /// Writes the input and closes it. If the program ends early, its exit status and its last lines give the reason.
    async fn write_input(&mut self) {
        if let (Some(mut stdin), Some(input)) = (self.child.stdin.take(), self.input.take()) {
            stdin.write_all(&input).await.ok();
        }
    }

    /// Writes all chunks to standard input. Returns `false` if the program did not read to their end.
    async fn write_chunks(
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

    async fn send_stdout(
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
            if read.or_fail(self.code, || format!("read from {}", self.label))? == 0 {
                break;
            }
        }
        Ok(chunk.freeze())
    }

    async fn ended_early(mut self) -> Result<()> {
        let status = self.status().await?;
        let what = "ended before it had read all of its input";
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
        let waited = self.child.wait().await;
        waited.or_fail(self.code, || format!("wait for {}", self.label))
    }

    async fn failure(self, what: &str, status: ExitStatus) -> Failure {
        let relays = async {
            for relay in self.relays {
                relay.await.ok();
            }
        };
        timeout(LAST_LINES, relays).await.ok();
        let lines = self.lines.text();
        let lines = if lines.is_empty() {
            "no output on stderr"
        } else {
            &lines
        };
        Failure::new(
            self.code,
            format!("{} {what} ({status}): {lines}", self.label),
        )
    }
}

/// Gives a pipe more capacity. If the user's pipes have used up their quota, it keeps the one that it has.
fn enlarge(pipe: impl AsFd) {
    rustix::pipe::fcntl_setpipe_size(pipe, PIPE).ok();
}

/// The last lines that a program printed.
#[derive(Debug, Clone, Default)]
struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    fn add(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect::<Vec<_>>().join(" | ")
    }
}

/// Logs each line with the program's name, and keeps the last ones.
async fn relay(program: String, stream: impl AsyncRead + Unpin, lines: LastLines, quiet: bool) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
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
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if quiet {
            tracing::debug!(program, "{text}");
        } else {
            tracing::info!(program, "{text}");
        }
        lines.add(text);
    }
}

/// The former interface, for the callers that still prepare a [`Command`] themselves.
#[derive(Debug)]
pub(crate) struct Child(Program, ExitCode);

impl Child {
    pub(crate) fn start(label: &str, command: &mut Command, code: ExitCode) -> Result<Self> {
        let mut program = Program::new(label).label(label);
        program.command = std::mem::replace(command, Command::new(label));
        program.command.stderr(Stdio::piped()).kill_on_drop(true);
        Ok(Self(program, code))
    }

    pub(crate) async fn output_to(
        self,
        chunks: mpsc::Sender<Bytes>,
        progress: &Progress,
    ) -> std::result::Result<u64, Stop> {
        self.0.stdout_to(chunks, progress, self.1).await
    }

    pub(crate) async fn input_from(
        self,
        chunks: mpsc::Receiver<Bytes>,
        progress: &Progress,
    ) -> Result<()> {
        self.0.stdin_from(chunks, progress, self.1).await
    }
}

#[cfg(test)]
mod tests;
