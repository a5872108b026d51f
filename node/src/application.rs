//! The application's own commands, and waiting until something is ready: every wait has a deadline and ends with
//! the last thing that was seen.

use std::path::Path;
use std::time::Duration;

use shared::report::ExitCode;
use tokio::time::{Instant, sleep, timeout_at};

use crate::agent::failure::{Failure, Result};
use crate::agent::process::Program;
use crate::postgres::{ADMIN_DATABASE, Postgres};
use crate::settings::{Commands, PostgresSettings, Server};

/// How long a start command may take.
const START_LIMIT: Duration = Duration::from_mins(10);
/// How long a stop command may take: a final backup has to fit into its time behind it.
const STOP_LIMIT: Duration = Duration::from_mins(3);
/// The first pause between two attempts; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Runs `start_postgres`, where it is set.
pub(crate) async fn start_postgres(commands: &Commands, root: &Path) -> Result<()> {
    let command = commands.start_postgres.as_deref();
    run_setting("start_postgres", command, START_LIMIT, root).await
}

/// Runs `start`, where it is set.
pub(crate) async fn start(commands: &Commands, root: &Path) -> Result<()> {
    run_setting("start", commands.start.as_deref(), START_LIMIT, root).await
}

/// Runs `stop`, where it is set. It stops the application, but not Postgres.
pub(crate) async fn stop(commands: &Commands, root: &Path) -> Result<()> {
    run_setting("stop", commands.stop.as_deref(), STOP_LIMIT, root).await
}

/// Waits until the `health` command ends with 0; without one the application counts as healthy.
pub(crate) async fn wait_healthy(commands: &Commands, root: &Path) -> Result<()> {
    let Some(command) = commands.health.as_deref() else {
        return Ok(());
    };
    let limit = Duration::from_secs(u64::from(commands.health_timeout_seconds));
    let check = || async {
        let program = program(command, root, ExitCode::HealthCheck)?;
        program.quiet().run(ExitCode::HealthCheck).await
    };
    wait(limit, check).await.map_err(|last| {
        let message = format!(
            "the application was not healthy after {} s; the last check of [commands] health said: {last}",
            limit.as_secs()
        );
        Failure::new(ExitCode::HealthCheck, message)
    })
}

/// Waits until the server accepts connections and is not in recovery.
pub(crate) async fn wait_for_postgres(
    postgres: &Postgres,
    settings: &PostgresSettings,
) -> Result<()> {
    let limit = Duration::from_secs(u64::from(settings.ready_timeout_seconds));
    let check = || async {
        let query = "SELECT to_json(pg_is_in_recovery())";
        let code = ExitCode::PostgresUnreachable;
        let recovering: bool = postgres.query(ADMIN_DATABASE, query, code).await?;
        if recovering {
            return Err(Failure::new(
                code,
                "the server is in recovery, or a standby",
            ));
        }
        Ok(())
    };
    wait(limit, check).await.map_err(|last| {
        let (place, remedy) = match &settings.server {
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
            "Postgres {place} did not answer within {} s ({last}): {remedy}",
            limit.as_secs()
        );
        Failure::new(ExitCode::PostgresUnreachable, message)
    })
}

/// Tries until it succeeds or the limit is over, and then returns the last failure. One attempt at the least is
/// made, and each is given up at the limit.
async fn wait<F, A>(limit: Duration, mut attempt: F) -> std::result::Result<(), String>
where
    F: FnMut() -> A,
    A: Future<Output = Result<()>>,
{
    let deadline = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    let mut last = "nothing".to_owned();
    loop {
        match timeout_at(deadline, attempt()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failure)) => last = failure.chain(),
            Err(_) => return Err(format!("{last}; the last attempt did not end")),
        }
        if Instant::now() + pause >= deadline {
            return Err(last);
        }
        sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

async fn run_setting(
    name: &str,
    command: Option<&[String]>,
    limit: Duration,
    root: &Path,
) -> Result<()> {
    let Some(command) = command else {
        return Ok(());
    };
    let began = Instant::now();
    let program = program(command, root, ExitCode::StartCommand)?;
    program
        .limit(limit)
        .run(ExitCode::StartCommand)
        .await
        .map_err(|failure| failure.context(format!("[commands] {name}")))?;
    tracing::info!(
        command = name,
        seconds = began.elapsed().as_secs_f64(),
        "the command ended"
    );
    Ok(())
}

/// Prepares an application's command. It gets the agent's whole environment, and the root as `REKINDLE_ROOT`.
fn program(command: &[String], root: &Path, code: ExitCode) -> Result<Program> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::new(code, "the command is empty"));
    };
    Ok(Program::with_agent_environment(program)
        .args(arguments)
        .env("REKINDLE_ROOT", root))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(health: &[&str]) -> Commands {
        Commands {
            start_postgres: None,
            start: Some(vec![
                "sh".to_owned(),
                "-c".to_owned(),
                "echo no such service >&2; exit 3".to_owned(),
            ]),
            stop: None,
            health: Some(health.iter().map(|&word| word.to_owned()).collect()),
            health_timeout_seconds: 1,
        }
    }

    #[tokio::test]
    async fn a_failed_command_speaks_its_own_words() {
        let failure = start(&commands(&[]), Path::new("")).await.unwrap_err();
        assert_eq!(
            failure.to_string(),
            "StartCommand (exit code 38): [commands] start: sh failed (exit status: 3): no such service"
        );
    }

    #[tokio::test]
    async fn health_is_waited_for_until_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let script = "test -e $REKINDLE_ROOT/up || { touch $REKINDLE_ROOT/up; exit 1; }";
        wait_healthy(&commands(&["sh", "-c", script]), directory.path())
            .await
            .unwrap();

        let failure = wait_healthy(
            &commands(&["sh", "-c", "echo starting; exit 1"]),
            Path::new(""),
        )
        .await
        .unwrap_err();
        assert_eq!(failure.code, ExitCode::HealthCheck);
        assert!(failure.chain().ends_with("(exit status: 1): starting"));
    }

    #[tokio::test]
    async fn an_unreachable_server_is_named_with_the_remedy() {
        let mut settings = PostgresSettings {
            server: Server::Direct {
                host: "/nonexistent".to_owned(),
                port: 5433,
            },
            user: "postgres".to_owned(),
            databases: None,
            bootstrap_role_password: crate::settings::BootstrapRolePassword::Restore,
            tablespaces: crate::settings::Tablespaces::Fail,
            ready_timeout_seconds: 1,
        };
        let wait = |settings: PostgresSettings| async move {
            wait_for_postgres(&Postgres::new(settings.clone()), &settings)
                .await
                .unwrap_err()
        };
        let failure = wait(settings.clone()).await;
        assert_eq!(failure.code, ExitCode::PostgresUnreachable);
        assert!(failure.chain().contains("at /nonexistent, port 5433"));
        assert!(
            failure
                .chain()
                .ends_with("correct [postgres] host and port in the settings")
        );

        settings.server = Server::Container("no_such_container".to_owned());
        let failure = wait(settings).await;
        assert_eq!(failure.code, ExitCode::PostgresUnreachable);
        assert!(failure.chain().contains("\"no_such_container\""));
    }
}
