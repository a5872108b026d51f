//! The application's own commands, and waiting until something is ready: every wait has a deadline and ends with
//! the last thing that was seen.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use shared::report::ExitCode;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::postgres::{ADMIN_DATABASE, Postgres};
use crate::settings::{Commands, PostgresSettings, Server};

/// How long a start command may take.
const START_LIMIT: Duration = Duration::from_mins(10);
/// How long a stop command may take: a final backup has to fit into its time behind it.
const STOP_LIMIT: Duration = Duration::from_mins(3);
/// How long after a command's end its last words are waited for: a daemon that it started may hold its output
/// open for ever.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// The first pause between two attempts; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How much of a command's output a message keeps, in bytes.
const KEPT_OUTPUT: usize = 400;

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
    let check = || run(command, root);
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
        let recovering: bool = postgres
            .query(ADMIN_DATABASE, query, code)
            .await
            .map_err(|failure| failure.chain())?;
        if recovering {
            return Err("the server is in recovery, or a standby".to_owned());
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
    A: Future<Output = std::result::Result<(), String>>,
{
    let deadline = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    let mut last = "nothing".to_owned();
    loop {
        match timeout_at(deadline, attempt()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(words)) => last = words,
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
    timeout(limit, run(command, root))
        .await
        .or_fail(ExitCode::StartCommand, || {
            let limit = limit.as_secs();
            format!("[commands] {name} did not end within {limit} s")
        })?
        .map_err(|words| {
            Failure::new(
                ExitCode::StartCommand,
                format!("[commands] {name}: {words}"),
            )
        })?;
    tracing::info!(
        command = name,
        seconds = began.elapsed().as_secs_f64(),
        "ran"
    );
    Ok(())
}

/// Runs a program to its end; an error is its last words. Its output never reaches the agent's own, which is the
/// report.
async fn run(command: &[String], root: &Path) -> std::result::Result<(), String> {
    let Some((program, arguments)) = command.split_first() else {
        return Err("the command is empty".to_owned());
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env("REKINDLE_ROOT", root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program} cannot be run: {error}"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut words = Tail::default();
    let mut errors = Tail::default();
    let ended = {
        let reading = async {
            tokio::join!(words.read(stdout), errors.read(stderr));
        };
        tokio::pin!(reading);
        tokio::select! {
            ended = child.wait() => {
                timeout(LAST_WORDS, &mut reading).await.ok();
                ended
            }
            () = &mut reading => child.wait().await,
        }
    };
    let status = ended.map_err(|error| format!("{program}: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let said = [words.text(), errors.text()].concat();
    Err(format!("{program} ended with {status}: {}", said.trim()))
}

/// The end of a stream.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    async fn read(&mut self, stream: Option<impl AsyncRead + Unpin>) {
        let Some(mut stream) = stream else { return };
        let mut buffer = vec![0; 4096];
        // A stream that cannot be read any more has ended.
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            self.0.extend_from_slice(&buffer[..count]);
            let surplus = self.0.len().saturating_sub(KEPT_OUTPUT);
            self.0.drain(..surplus);
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
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
            "StartCommand (exit code 38): [commands] start: sh ended with exit status: 3: no such service"
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
        assert!(failure.chain().ends_with("exit status: 1: starting"));
    }

    #[tokio::test]
    async fn a_command_that_leaves_a_daemon_behind_has_ended() {
        let began = Instant::now();
        run(
            &["sh".to_owned(), "-c".to_owned(), "sleep 5 &".to_owned()],
            Path::new(""),
        )
        .await
        .unwrap();
        assert!(began.elapsed() < Duration::from_secs(4));
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
