//! What runs in the server's container: how a tool is started there, and how those that an agent left there end.
//!
//! Killing `docker exec` kills the client alone. What it had started runs on in the container, with its sessions and
//! their locks, and nothing on the node's side tells it from the application's own processes but its environment.

use std::process::Stdio;

use shared::report::ExitCode;
use tokio::process::Command;

use crate::agent::failure::{Failure, OrFail as _, Result};
use crate::postgres::{ADMIN_DATABASE, APPLICATION_NAME, Postgres};

/// Runs a tool with the password that the container was given for its server, where the server asks for one: it stays
/// in the container. The usual images have it in `POSTGRES_PASSWORD`, or in the file that `POSTGRES_PASSWORD_FILE` names.
pub(crate) const WITH_OWN_PASSWORD: &str = r#"
if [ -z "${PGPASSWORD-}${PGPASSFILE-}" ]; then
  if [ -n "${POSTGRES_PASSWORD-}" ]; then
    PGPASSWORD=$POSTGRES_PASSWORD; export PGPASSWORD
  elif [ -r "${POSTGRES_PASSWORD_FILE-}" ]; then
    PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE"); export PGPASSWORD
  fi
fi
exec "$0" "$@""#;

/// Ends every process whose environment has the tools' application name, and waits until there is none; prints how many
/// there were. The shell that runs this has another environment. Nothing is needed but a shell, `grep` and `sleep`.
const END_TOOLS: &str = r#"
left() {
  for process in /proc/[0-9]*; do
    if grep -q "PGAPPNAME=$0" "$process/environ" 2>/dev/null; then echo "${process#/proc/}"; fi
  done
}
found=$(left)
set -- $found
echo $#
signal=TERM
for attempt in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  [ -n "$found" ] || exit 0
  kill -s $signal $found 2>/dev/null
  sleep 0.2
  found=$(left)
  [ $attempt -lt 10 ] || signal=KILL
done
echo "these processes do not end:" $found >&2
exit 1"#;

/// Ends the sessions of tools that are gone: a server notices only once it wants to send something.
const END_SESSIONS: &str = "SELECT to_json(count(pg_terminate_backend(pid))) FROM pg_stat_activity
  WHERE application_name = 'rekindle' AND pid <> pg_backend_pid()";

/// Ends what an agent that was killed has left running. Only while this node is locked: whatever is found is nobody's.
pub(crate) async fn end_leftovers(postgres: &Postgres) -> Result<()> {
    let tools = match postgres.container() {
        Some(container) => end_tools(container).await?,
        None => 0,
    };
    let code = ExitCode::PostgresUnreachable;
    let sessions: u64 = postgres.query(ADMIN_DATABASE, END_SESSIONS, code).await?;
    if tools + sessions > 0 {
        tracing::warn!(
            tools,
            sessions,
            "ended what an earlier agent had left running"
        );
    }
    Ok(())
}

/// Ends the tools in a container; returns how many there were.
async fn end_tools(container: &str) -> Result<u64> {
    let doing = || format!("end what an earlier agent left in the container {container:?}");
    let mut command = docker();
    command.args([
        "exec",
        "-i",
        container,
        "sh",
        "-c",
        END_TOOLS,
        APPLICATION_NAME,
    ]);
    let output = said(command, ExitCode::PostgresUnreachable, doing).await?;
    output
        .trim()
        .parse()
        .or_fail(ExitCode::PostgresUnreachable, doing)
}

/// Prepares a command for the container engine. It is killed when it is dropped.
pub(crate) fn docker() -> Command {
    let mut command = Command::new("docker");
    command
        .env_clear()
        .envs(crate::postgres::kept_environment())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs a command to its end and returns what it printed; a failure is its last words.
pub(crate) async fn said<C: std::fmt::Display>(
    mut command: Command,
    code: ExitCode,
    doing: impl Fn() -> C,
) -> Result<String> {
    let output = command.output().await.or_fail(code, &doing)?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let message = format!("{}: {} ({})", doing(), words.trim(), output.status);
        return Err(Failure::new(code, message));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
