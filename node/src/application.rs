//! Starts and stops the application by its own commands, and waits until Postgres and the application are ready. Each
//! step has a time limit of its own, so the stall limit does not apply to it.

use std::time::Duration;

use shared::exit_code::ExitCode;
use tokio::time::{Instant, sleep, timeout_at};

use crate::agent::failure::{Failure, Result};
use crate::agent::process::Program;
use crate::context::Context;
use crate::postgres::ADMIN_DATABASE;
use crate::settings::Server;

/// The time limit of a start command.
const START_LIMIT: Duration = Duration::from_mins(10);
/// The time limit of a stop command. The final backup runs after it, within the same command.
const STOP_LIMIT: Duration = Duration::from_mins(3);
/// The first pause between two checks; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

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
    let waiting = context.progress.without_stall_limit(wait(limit, check));
    waiting.await.map_err(|last| {
        let message = format!(
            "the application is not healthy after {} s: the last run of [commands] health: {last}",
            limit.as_secs()
        );
        Failure::new(ExitCode::HealthCheck, message)
    })
}

/// Waits until the server accepts connections and is not in recovery.
pub(crate) async fn wait_for_postgres(context: &Context) -> Result<()> {
    let settings = &context.settings.postgres;
    let limit = Duration::from_secs(u64::from(settings.ready_timeout_seconds));
    let check = || async {
        let query = "SELECT to_json(pg_is_in_recovery())";
        let code = ExitCode::PostgresUnreachable;
        let recovering: bool = context.postgres.query(ADMIN_DATABASE, query, code).await?;
        if recovering {
            return Err(Failure::new(
                code,
                "the server is in recovery or is a standby",
            ));
        }
        Ok(())
    };
    let waiting = context.progress.without_stall_limit(wait(limit, check));
    waiting.await.map_err(|last| {
        let (address, remedy) = match &settings.server {
            Server::Container(name) => (
                format!("in the container {name:?}"),
                "start the container, or correct [postgres] container in the settings",
            ),
            Server::Direct { host, port } => (
                format!("at {host}, port {port}"),
                "start the server, or correct [postgres] host and port in the settings",
            ),
        };
        let message = format!(
            "Postgres {address} is not ready after {} s: {last}; {remedy}",
            limit.as_secs()
        );
        Failure::new(ExitCode::PostgresUnreachable, message)
    })
}

/// Repeats a check until it succeeds. If the limit is over, drops the running check, and returns the message of the
/// last failed check. The check runs at least once.
async fn wait<F, A>(limit: Duration, mut check: F) -> std::result::Result<(), String>
where
    F: FnMut() -> A,
    A: Future<Output = Result<()>>,
{
    let deadline = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    let mut last = "no check has finished".to_owned();
    loop {
        match timeout_at(deadline, check()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failure)) => last = failure.chain(),
            Err(_) => return Err(format!("{last}; the last check did not finish")),
        }
        if Instant::now() + pause >= deadline {
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
mod tests {
    use std::path::Path;

    use super::*;
    use crate::postgres::Postgres;
    use crate::settings::Commands;
    use crate::testing;

    async fn context(health: &[&str], root: &Path) -> Context {
        let mut context = testing::context(root).await;
        context.settings.commands = Commands {
            start_postgres: None,
            start: Some(vec![
                "sh".to_owned(),
                "-c".to_owned(),
                "echo no such service >&2; exit 3".to_owned(),
            ]),
            stop: None,
            health: Some(health.iter().map(|&word| word.to_owned()).collect()),
            health_timeout_seconds: 1,
        };
        context
    }

    #[tokio::test]
    async fn the_failure_of_a_command_quotes_its_output() {
        let context = context(&[], Path::new("")).await;
        let failure = start(&context).await.unwrap_err();
        assert_eq!(
            failure.to_string(),
            "StartCommand (exit code 38): [commands] start: sh failed (exit status: 3): no such service"
        );
    }

    #[tokio::test]
    async fn the_health_command_is_repeated_until_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let script = "test -e $REKINDLE_ROOT/up || { touch $REKINDLE_ROOT/up; exit 1; }";
        let healthy = context(&["sh", "-c", script], directory.path()).await;
        wait_healthy(&healthy).await.unwrap();

        let unhealthy = context(&["sh", "-c", "echo starting; exit 1"], Path::new("")).await;
        let failure = wait_healthy(&unhealthy).await.unwrap_err();
        assert_eq!(failure.code, ExitCode::HealthCheck);
        assert!(failure.chain().ends_with("(exit status: 1): starting"));
    }

    #[tokio::test]
    async fn the_failure_names_an_unreachable_server_and_the_remedy() {
        let wait = async |server: Server| {
            let mut context = testing::context(Path::new("")).await;
            context.settings.postgres.server = server;
            context.settings.postgres.ready_timeout_seconds = 1;
            context.postgres = Postgres::new(context.settings.postgres.clone());
            wait_for_postgres(&context).await.unwrap_err()
        };
        let failure = wait(Server::Direct {
            host: "/nonexistent".to_owned(),
            port: 5433,
        })
        .await;
        assert_eq!(failure.code, ExitCode::PostgresUnreachable);
        assert!(failure.chain().contains("at /nonexistent, port 5433"));
        assert!(
            failure
                .chain()
                .ends_with("correct [postgres] host and port in the settings")
        );

        let failure = wait(Server::Container("no_such_container".to_owned())).await;
        assert_eq!(failure.code, ExitCode::PostgresUnreachable);
        assert!(failure.chain().contains("\"no_such_container\""));
    }
}
