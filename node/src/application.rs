//! Starts and stops the application by its own commands, and waits until Postgres and the application are ready. Each
//! step has a time limit of its own, so the stall limit does not apply to it.

use std::time::Duration;

use shared::exit_code::ExitCode;
use tokio::time::{Instant, sleep, timeout_at};

use crate::agent::failure::{Failure, Result};
use crate::agent::process::Program;
use crate::context::Context;
use crate::postgres::{ADMIN_DATABASE, Postgres};
use crate::settings::Server;

/// The time limit of a start command.
const START_LIMIT: Duration = Duration::from_mins(10);
/// The time limit of a stop command. The final backup runs after it, within the same command.
const STOP_LIMIT: Duration = Duration::from_mins(3);
/// The first pause between two checks; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long a permanent failure must last until the wait ends. At the first start of a container, a temporary server
/// answers before scripts have created the roles and their passwords.
const FIRST_START: Duration = Duration::from_mins(1);

/// Runs the `start_postgres` command, if it is set.
pub(crate) async fn start_postgres(context: &Context) -> Result<()> {
    let command = context.settings.commands.start_postgres.as_deref();
    run_command(context, "start_postgres", command, START_LIMIT).await
}

/// Runs the `start` command, if it is set.
pub(crate) async fn start(context: &Context) -> Result<()> {
    let command = context.settings.commands.start.as_deref();
    run_command(context, "start", command, START_LIMIT).await
}

/// Runs the `stop` command, if it is set. It stops the application, but not Postgres.
pub(crate) async fn stop(context: &Context) -> Result<()> {
    let command = context.settings.commands.stop.as_deref();
    run_command(context, "stop", command, STOP_LIMIT).await
}

/// Waits until the `health` command exits with 0. Without that command, the application counts as healthy.
pub(crate) async fn wait_healthy(context: &Context) -> Result<()> {
    let commands = &context.settings.commands;
    let Some(command) = commands.health.as_deref() else {
        return Ok(());
    };
    let limit = Duration::from_secs(u64::from(commands.health_timeout_seconds));
    let check = || async {
        let program = program(context, command, ExitCode::HealthCheck)?;
        program.quiet().run(ExitCode::HealthCheck).await
    };
    let checks = wait(limit, ExitCode::HealthCheck, check);
    let waiting = context.progress.without_stall_limit(checks);
    waiting.await.map_err(|last| {
        let message = format!(
            "the application is not healthy after {} s: the last run of [commands] health: {}",
            limit.as_secs(),
            last.chain()
        );
        Failure::new(ExitCode::HealthCheck, message)
    })
}

/// Waits until the server accepts connections and is not in recovery. If it refuses the agent's sessions for
/// [`FIRST_START`], the agent stops waiting, because nobody corrects that meanwhile.
pub(crate) async fn wait_for_postgres(context: &Context) -> Result<()> {
    let settings = &context.settings.postgres;
    let limit = Duration::from_secs(u64::from(settings.ready_timeout_seconds));
    let began = Instant::now();
    let check = || check_postgres(&context.postgres);
    let checks = wait(limit, ExitCode::PostgresUnreachable, check);
    let waiting = context.progress.without_stall_limit(checks);
    waiting
        .await
        .map_err(|last| not_ready(&settings.server, began.elapsed(), &last))
}

/// Checks that the server accepts connections and is not in recovery.
async fn check_postgres(postgres: &Postgres) -> Result<()> {
    let query = "SELECT to_json(pg_is_in_recovery())";
    let code = ExitCode::PostgresUnreachable;
    let recovering: bool = postgres.query(ADMIN_DATABASE, query, code).await?;
    if recovering {
        let message = "the server is in recovery or is a standby";
        return Err(Failure::new(ExitCode::PostgresNotReady, message));
    }
    Ok(())
}

/// Returns the failure of a server that was not ready after `waited`. `last` is the failure of the last check.
fn not_ready(server: &Server, waited: Duration, last: &Failure) -> Failure {
    let (address, start) = match server {
        Server::Container(name) => (
            format!("in the container {name:?}"),
            "; start the container, or correct [postgres] container in the settings",
        ),
        Server::Direct { host, port } => (
            format!("at {host}, port {port}"),
            "; start the server, or correct [postgres] host and port in the settings",
        ),
    };
    let (state, remedy) = match last.code {
        ExitCode::PostgresUnreachable => ("is not reachable", start),
        // The message of a refusal has its own remedy.
        ExitCode::PostgresRefused => ("refuses the agent", ""),
        _ => ("is not ready", "; read the server's log"),
    };
    let (seconds, chain) = (waited.as_secs(), last.chain());
    let message = format!("Postgres {address} {state} after {seconds} s: {chain}{remedy}");
    Failure::new(last.code, message)
}

/// Repeats a check until it succeeds. Returns the failure of the last check if the limit is over, or if checks have
/// failed permanently for [`FIRST_START`]. `code` is the exit code if no check ends within the limit. The check runs at
/// least once, and the limit drops a running check.
async fn wait<F, A>(limit: Duration, code: ExitCode, mut check: F) -> Result<()>
where
    F: FnMut() -> A,
    A: Future<Output = Result<()>>,
{
    let deadline = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    let mut last = Failure::new(code, "no check has finished");
    let mut permanent_since = None;
    loop {
        match timeout_at(deadline, check()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failure)) => last = failure,
            Err(_) => {
                let message = format!("{}; the last check did not finish", last.chain());
                return Err(Failure::new(last.code, message));
            }
        }
        let now = Instant::now();
        let permanent = last.code.permanent();
        permanent_since = permanent.then(|| permanent_since.unwrap_or(now));
        let stays = permanent_since.is_some_and(|since| now - since >= FIRST_START);
        if stays || now + pause >= deadline {
            return Err(last);
        }
        sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

async fn run_command(
    context: &Context,
    name: &str,
    command: Option<&[String]>,
    limit: Duration,
) -> Result<()> {
    let Some(command) = command else {
        return Ok(());
    };
    let began = Instant::now();
    let program = program(context, command, ExitCode::StartCommand)?;
    // The command's output may contain secrets. It is in the message of a failure only.
    let running = program.quiet().limit(limit).run(ExitCode::StartCommand);
    context
        .progress
        .without_stall_limit(running)
        .await
        .map_err(|failure| failure.context(format!("[commands] {name}")))?;
    tracing::info!(
        command = name,
        seconds = began.elapsed().as_secs_f64(),
        "the command has finished"
    );
    Ok(())
}

/// Prepares an application's command. It gets the agent's whole environment, and the root as `REKINDLE_ROOT`.
fn program(context: &Context, command: &[String], code: ExitCode) -> Result<Program> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::new(code, "the command is empty"));
    };
    Ok(Program::with_agent_environment(program)
        .args(arguments)
        .env("REKINDLE_ROOT", &context.root))
}

#[cfg(test)]
mod tests;
