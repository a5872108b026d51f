//! `rekindle-node`, the agent that SSM runs on the instance.
//!
//! Standard output is one line, the report; standard error is the log, one JSON object per line; the exit code
//! says what kind of failure it was.

pub mod agent;
mod application;
pub mod backup;
mod chunks;
mod context;
pub mod files;
pub mod images;
mod leftovers;
pub mod objects;
pub mod postgres;
pub mod restore;
mod s3;
pub mod settings;
#[cfg(test)]
mod testing;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use shared::command::{BackupCommand, Purpose, RestoreCommand};
use shared::id::OperationId;
use shared::report::{ExitCode, Report};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::agent::command_line::{Candidates, CommandLine, Task, operation_of};
use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::agent::lock::WaitPolicy;
use crate::agent::run_once::{exit_status, failed, run_once};
use crate::agent::state::State;
use crate::agent::watchdog::Progress;
use crate::context::Context;
use crate::s3::open_uploads::OpenUploads;
use crate::settings::Settings;

/// How long threads that cannot be interrupted may keep the process alive after its report.
const LAST_THREADS: Duration = Duration::from_millis(500);

/// Does what the command line asks, and returns what the process exits with.
pub fn run() -> std::process::ExitCode {
    log_to_stderr();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let line = match CommandLine::try_parse_from(&arguments) {
        Ok(line) => line,
        Err(error) => return misunderstood(&error, &arguments),
    };
    let root = line.root();
    match line.task {
        Task::Check => check(&root),
        Task::Backup {
            operation_id,
            backup_id,
            purpose,
        } => {
            let command = BackupCommand {
                operation_id,
                backup_id,
                purpose,
            };
            answer(
                &root,
                &command.operation_id.clone(),
                &Operation::Backup(command),
            )
        }
        Task::Restore {
            operation_id,
            candidates: Candidates(candidates),
            mode,
        } => {
            let command = RestoreCommand {
                operation_id,
                mode,
                candidates,
            };
            answer(
                &root,
                &command.operation_id.clone(),
                &Operation::Restore(command),
            )
        }
    }
}

/// What is settled once.
#[derive(Debug)]
enum Operation {
    Backup(BackupCommand),
    Restore(RestoreCommand),
}

impl Operation {
    fn wait_policy(&self) -> WaitPolicy {
        match self {
            Self::Backup(command) if command.purpose == Purpose::Final => WaitPolicy::Preempt,
            Self::Backup(_) => WaitPolicy::DoNotWait,
            Self::Restore(_) => WaitPolicy::UntilFree,
        }
    }

    async fn run(&self, context: &Context) -> Result<Report> {
        match self {
            Self::Backup(command) => backup::run(context, command).await.map(Report::Backup),
            Self::Restore(command) => restore::run(context, command).await.map(Report::Restore),
        }
    }

    /// Does what a success entails, also where it was settled before: the agent may have ended in between.
    fn conclude(&self, state: &State, report: &Report) -> Result<()> {
        match (self, report) {
            (Self::Backup(command), Report::Backup(_)) if command.purpose == Purpose::Final => {
                backup::decommission(state)
            }
            _ => Ok(()),
        }
    }
}

/// Settles the operation and prints its report.
fn answer(root: &Path, id: &OperationId, operation: &Operation) -> std::process::ExitCode {
    let report = match Runtime::new().or_fail(ExitCode::Internal, || "start the async runtime") {
        Ok(runtime) => {
            let report = runtime.block_on(perform(root, id, operation));
            runtime.shutdown_timeout(LAST_THREADS);
            report
        }
        Err(failure) => failed(id, &failure),
    };
    print(&report.to_line());
    exit_status(&report).into()
}

async fn perform(root: &Path, id: &OperationId, operation: &Operation) -> Report {
    let (progress, uploads) = (Progress::default(), OpenUploads::default());
    let performing = async {
        let state = State::open(root)?;
        let work = async || {
            let context = Context::gather(&state, &progress, &uploads).await?;
            let limit = Duration::from_secs(context.settings.stall_limit_seconds.into());
            tokio::select! {
                report = operation.run(&context) => report,
                stall = progress.stalled(limit) => Err(stall),
            }
        };
        let report = run_once(&state, id, operation.wait_policy(), work).await;
        operation.conclude(&state, &report)?;
        Ok(report)
    };
    // Whatever is given up here kills its children as it is dropped. Signals come first: one that asks for way is sent
    // as soon as the lock is taken, and must not meet a process that does not listen yet.
    let report = tokio::select! {
        biased;
        failure = told_to_stop() => Err(failure),
        report = performing => report,
    };
    uploads.abort_all().await;
    report.unwrap_or_else(|failure: Failure| failed(id, &failure))
}

/// Waits until the agent is told to stop.
async fn told_to_stop() -> Failure {
    let signals = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
        SignalKind::user_defined1(),
    ];
    let [
        Ok(mut terminate),
        Ok(mut interrupt),
        Ok(mut hangup),
        Ok(mut way),
    ] = signals.map(signal)
    else {
        return Failure::new(ExitCode::Internal, "signals cannot be waited for");
    };
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        _ = hangup.recv() => "SIGHUP",
        _ = way.recv() => {
            return Failure::new(ExitCode::Busy, "gave way to the node's final backup");
        }
    };
    Failure::new(ExitCode::Interrupted, format!("stopped by {name}"))
}

/// Prints how the settings are understood, or everything that is wrong with them.
fn check(root: &Path) -> std::process::ExitCode {
    match Settings::load(root) {
        Ok(settings) => {
            print(&settings.to_string());
            std::process::ExitCode::SUCCESS
        }
        Err(failure) => {
            tracing::error!("{}", failure.chain());
            print(&failure.chain());
            failure.code.code().into()
        }
    }
}

fn misunderstood(error: &clap::Error, arguments: &[OsString]) -> std::process::ExitCode {
    if !error.use_stderr() {
        // The help or the version was asked for.
        print(&error.to_string());
        return std::process::ExitCode::SUCCESS;
    }
    let failure = Failure::new(ExitCode::Usage, error);
    if let Some(operation) = operation_of(arguments) {
        print(&failed(&operation, &failure).to_line());
    } else {
        tracing::error!("{}", failure.chain());
    }
    ExitCode::Usage.code().into()
}

/// Prints to standard output, and only here: everything else is the log's.
fn print(line: &str) {
    let mut stdout = std::io::stdout().lock();
    // A reader that is gone cannot be told so.
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .ok();
}

fn log_to_stderr() {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
