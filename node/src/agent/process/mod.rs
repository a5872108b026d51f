//! Runs other programs: the tools of Postgres, the container engine, and the application's own commands.
//!
//! Every child process of the agent is started here. For each of them the environment is explicit, the child is killed
//! when its future is dropped, stderr goes into the log line by line without secrets, and the exit status is checked.

mod kept_lines;
mod postgres_output;
mod refusals;
mod refused_entries;
mod running;
mod secrets;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use shared::exit_code::ExitCode;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::running::Running;
use crate::agent::failure::{Failure, Result};
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

/// A program to run.
///
/// Build it, then run it once in one of four ways. Each of them fails with the given exit code if the program cannot be
/// started, does not end in time, or ends with another status than 0; the failure quotes its last lines. A program of
/// Postgres that the server refuses fails with the exit code of the refusal instead.
///
/// ```ignore
/// // Runs to its end; what it prints goes into the log.
/// Program::new("docker").args(["tag", id, name]).run(ExitCode::Internal).await?;
///
/// // Returns what it prints. `quiet` keeps a polled program's lines out of the log.
/// let version = Program::new("pg_dump").args(["--version"]).output(ExitCode::Dump).await?;
/// let rows = postgres.tool("psql").input(script).quiet().output(ExitCode::Restore).await?;
///
/// // Streams: out of one program and into another. Both futures must be polled at the same time.
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
    is_postgres: bool,
}

/// Why a stage of a stream ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It failed.
    Failed(Failure),
    /// The stage that it feeds ended early, and has the cause.
    Downstream,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Stop> for Failure {
    /// Returns the failure. A stage ends with `Stop::Downstream` only if another one failed; anything else is a defect.
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Failed(failure) => failure,
            Stop::Downstream => Self::new(
                ExitCode::Internal,
                "a stage of a stream ended without a cause; report this defect",
            ),
        }
    }
}

/// The entries of an archive that `pg_restore` could not restore.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Their numbers in the table of contents.
    pub(crate) entries: BTreeSet<i64>,
    /// The failure of `pg_restore`, with the first error.
    pub(crate) failure: Failure,
}

/// Returns a message of the server without passwords and without literals of its statement.
pub(crate) fn without_secrets(message: &str) -> String {
    secrets::hide_in_message(message)
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
            is_postgres: false,
        }
    }

    /// Sets the name in failures and in the log, such as `docker load`. The default is the program's own name.
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

    /// Reads its lines as those of a program of Postgres: a failure begins with the error, and neither the failure nor
    /// the log contains the text of a statement, because statements contain passwords.
    pub(crate) fn of_postgres(mut self) -> Self {
        self.is_postgres = true;
        self
    }

    /// Runs the program to its end. Its standard output goes into the log like its standard error.
    pub(crate) async fn run(self, code: ExitCode) -> Result<()> {
        let to_end = async |mut running: Running| {
            running.relay_stdout();
            running.write_input().await;
            running.end().await
        };
        self.supervised(code, to_end).await
    }

    /// Runs the program to its end, and returns its standard output.
    pub(crate) async fn output(self, code: ExitCode) -> Result<Vec<u8>> {
        let to_end = async |mut running: Running| {
            let output = running.answer().await?;
            running.end().await?;
            Ok(output)
        };
        self.supervised(code, to_end).await
    }

    /// Runs the program to its end, sends its standard output in chunks, and returns their number of bytes.
    pub(crate) async fn stdout_to(
        self,
        chunks: mpsc::Sender<Bytes>,
        progress: &Progress,
        code: ExitCode,
    ) -> std::result::Result<u64, Stop> {
        let to_end = async |mut running: Running| {
            let sent = running.send_stdout(&chunks, progress).await?;
            running.end().await?;
            Ok(sent)
        };
        self.supervised(code, to_end).await
    }

    /// Runs the program to its end, with the chunks as its standard input. It has failed if it ends before it has read
    /// all of them, even with the status 0.
    pub(crate) async fn stdin_from(
        self,
        chunks: mpsc::Receiver<Bytes>,
        progress: &Progress,
        code: ExitCode,
    ) -> Result<()> {
        self.fed(chunks, progress, code, Running::end).await
    }

    /// Runs a `pg_restore` like [`Self::stdin_from`], but without `--exit-on-error`: it goes on when the server refuses a
    /// statement. Returns the refused entries, or `None` if there are none.
    ///
    /// # Errors
    ///
    /// `pg_restore` did not reach the end of the archive.
    pub(crate) async fn restore_from(
        self,
        chunks: mpsc::Receiver<Bytes>,
        progress: &Progress,
        code: ExitCode,
    ) -> Result<Option<Refused>> {
        self.fed(chunks, progress, code, Running::end_of_restore)
            .await
    }

    /// Runs the program with the chunks as its standard input, and waits for its `end` if it reads all of them.
    async fn fed<T>(
        mut self,
        mut chunks: mpsc::Receiver<Bytes>,
        progress: &Progress,
        code: ExitCode,
        end: impl AsyncFnOnce(Running) -> Result<T>,
    ) -> Result<T> {
        self.command.stdin(Stdio::piped());
        let to_end = async |mut running: Running| {
            running.relay_stdout();
            if running.write_chunks(&mut chunks, progress).await {
                return end(running).await;
            }
            chunks.close();
            Err(running.ended_early().await)
        };
        self.supervised(code, to_end).await
    }

    /// Starts the program and runs it `to_end`, or kills it after its time limit.
    async fn supervised<T, E: From<Failure>>(
        self,
        code: ExitCode,
        to_end: impl AsyncFnOnce(Running) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let (label, limit) = (self.label.clone(), self.limit);
        let ending = to_end(Running::start(self, code)?);
        let Some(limit) = limit else {
            return ending.await;
        };
        timeout(limit, ending).await.unwrap_or_else(|_| {
            let seconds = limit.as_secs();
            let message = format!("{label} was killed: it did not end within {seconds} s");
            Err(Failure::new(code, message).into())
        })
    }
}

#[cfg(test)]
mod tests;
