//! Ends the tools and sessions that a killed agent left running.
//!
//! Killing `docker exec` kills only the client. The tool that it started keeps running in the container, with its
//! session and its locks. Only its environment distinguishes it from the application's own processes.

use shared::exit_code::ExitCode;

use crate::agent::failure::{OrFail as _, Result};
use crate::agent::process::Program;
use crate::postgres::client::{ADMIN_DATABASE, APPLICATION_NAME, Postgres};

/// Ends every process that has the tools' application name in its environment, waits until there is none, and prints
/// their number. The shell that runs the script has another environment. The script needs only a shell, `grep` and
/// `sleep`.
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
echo "these processes are still running:" $found >&2
exit 1"#;

/// Ends the sessions of tools that no longer run. The server itself notices this only when it next sends something.
const END_SESSIONS: &str = "SELECT to_json(count(pg_terminate_backend(pid))) FROM pg_stat_activity
  WHERE application_name = 'rekindle' AND pid <> pg_backend_pid()";

/// Ends the tools and sessions of an earlier agent. The caller must hold the node's lock, so that none of them belongs
/// to a running agent.
pub(crate) async fn end_tools_and_sessions(postgres: &Postgres) -> Result<()> {
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

/// Ends the tools in a container and returns their number.
async fn end_tools(container: &str) -> Result<u64> {
    let code = ExitCode::PostgresUnreachable;
    let doing = || {
        format!(
            "cannot end the tools of an earlier agent in the container {container:?} (restart it if this repeats)"
        )
    };
    let output = Program::new("docker")
        .label("docker exec")
        .args(["exec", "-i", container])
        .args(["sh", "-c", END_TOOLS, APPLICATION_NAME])
        .output(code)
        .await
        .map_err(|failure| failure.context(doing()))?;
    String::from_utf8_lossy(&output)
        .trim()
        .parse()
        .or_fail(code, doing)
}
