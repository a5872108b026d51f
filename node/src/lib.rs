//! `rekindle-node`, the agent that SSM runs on the node.
//!
//! Standard output is one line, the report. Standard error is the log, one JSON object per line. The exit code is the
//! kind of failure. The program starts in [`run`]; [`backup`] and [`restore`] do the work.

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
use shared::exit_code::ExitCode;
use shared::operation::Operation;
use shared::report::Report;
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

/// How long threads that cannot be interrupted may delay the end of the process.
const LAST_THREADS: Duration = Duration::from_millis(500);

/// Runs the command line, and returns the exit code of the process.
pub fn run() -> std::process::ExitCode {
    log_to_stderr();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let line = match CommandLine::try_parse_from(&arguments) {
        Ok(line) => line,
        Err(error) => return refuse(&error, &arguments),
    };
    let root = line.root();
    let command = match line.task {
        Task::Check => return check(&root),
        Task::Backup {
            operation_id,
            backup_id,
            purpose,
        } => Command::Backup(BackupCommand {
            operation_id,
            backup_id,
            purpose,
        }),
        Task::Restore {
            operation_id,
            candidates: Candidates(candidates),
            mode,
        } => Command::Restore(RestoreCommand {
            operation_id,
            mode,
            candidates,
        }),
    };
    run_and_report(&root, &command)
}

/// A command. Its operation runs once.
#[derive(Debug)]
enum Command {
    Backup(BackupCommand),
    Restore(RestoreCommand),
}

impl Command {
    fn operation_id(&self) -> &Operation {
        match self {
            Self::Backup(command) => &command.operation_id,
            Self::Restore(command) => &command.operation_id,
        }
    }

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

    /// Decommissions the node after its final backup. This also happens if an earlier agent finished the backup,
    /// because that agent may have ended before it decommissioned the node.
    fn after_success(&self, state: &State, report: &Report) -> Result<()> {
        match (self, report) {
            (Self::Backup(command), Report::Backup(_)) if command.purpose == Purpose::Final => {
                backup::decommission(state)
            }
            _ => Ok(()),
        }
    }
}

/// Runs the command and prints its report.
fn run_and_report(root: &Path, command: &Command) -> std::process::ExitCode {
    let runtime = Runtime::new().or_fail(ExitCode::Internal, || "cannot start the async runtime");
    let report = match runtime {
        Ok(runtime) => {
            let report = runtime.block_on(run_until_signal(root, command));
            runtime.shutdown_timeout(LAST_THREADS);
            report
        }
        Err(failure) => failed(command.operation_id(), &failure),
    };
    print(&report.to_line());
    exit_status(&report).into()
}

/// Runs the command until it has finished or a signal ends it. Uploads that are still open are aborted.
async fn run_until_signal(root: &Path, command: &Command) -> Report {
    let (progress, uploads) = (Progress::default(), OpenUploads::default());
    let operation = command.operation_id();
    let running = async {
        let state = State::open(root)?;
        let work = async || {
            let context = Context::gather(&state, &progress, &uploads).await?;
            let limit = Duration::from_secs(context.settings.stall_limit_seconds.into());
            tokio::select! {
                report = command.run(&context) => report,
                stall = progress.stalled(limit) => Err(stall),
            }
        };
        let report = run_once(&state, operation, command.wait_policy(), work).await;
        command.after_success(&state, &report)?;
        Ok(report)
    };
    // Dropping the command's future kills its child processes. Signal handlers are installed first: a final backup may
    // preempt this command as soon as it holds the lock.
    let report = tokio::select! {
        biased;
        failure = signal_received() => Err(failure),
        report = running => report,
    };
    uploads.abort_all().await;
    report.unwrap_or_else(|failure: Failure| failed(operation, &failure))
}

/// Waits for a signal that ends the agent, and returns its failure.
async fn signal_received() -> Failure {
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
        Ok(mut preempt),
    ] = signals.map(signal)
    else {
        return Failure::new(ExitCode::Internal, "cannot install the signal handlers");
    };
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        _ = hangup.recv() => "SIGHUP",
        _ = preempt.recv() => {
            return Failure::new(ExitCode::Busy, "preempted by the node's final backup");
        }
    };
    Failure::new(ExitCode::Interrupted, format!("stopped by {name}"))
}

/// Prints all settings, with the defaults of those that are not set, or every problem in them. The log names what is
/// mounted within configured paths.
fn check(root: &Path) -> std::process::ExitCode {
    match Settings::load(root) {
        Ok(settings) => {
            backup::configuration::warn_of_mounts(&settings, root);
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

/// Refuses a command line. If it has an operation id, the failure is printed as that operation's report.
fn refuse(error: &clap::Error, arguments: &[OsString]) -> std::process::ExitCode {
    if !error.use_stderr() {
        // This is not an error but the answer to --help or --version.
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

/// Prints to standard output. Nothing else does: the functions parse it as the report.
fn print(line: &str) {
    let mut stdout = std::io::stdout().lock();
    // If the reader is gone, there is nobody to report the error to.
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
