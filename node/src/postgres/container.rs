//! Commands of the container engine, and how a tool starts in the server's container.

use std::ffi::OsString;
use std::process::Stdio;

use shared::report::ExitCode;
use tokio::process::Command;

use crate::agent::failure::{Failure, OrFail as _, Result};

/// The variables of the agent's environment that its tools keep: how to find and reach things, and no AWS credentials.
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

/// Runs a tool with the password that the container has for its own server, so that the password never leaves the
/// container. The usual images have it in `POSTGRES_PASSWORD`, or in the file that `POSTGRES_PASSWORD_FILE` names.
pub(crate) const WITH_OWN_PASSWORD: &str = r#"
if [ -z "${PGPASSWORD-}${PGPASSFILE-}" ]; then
  if [ -n "${POSTGRES_PASSWORD-}" ]; then
    PGPASSWORD=$POSTGRES_PASSWORD; export PGPASSWORD
  elif [ -r "${POSTGRES_PASSWORD_FILE-}" ]; then
    PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE"); export PGPASSWORD
  fi
fi
exec "$0" "$@""#;

/// Returns the part of the agent's environment that its tools keep.
pub(crate) fn kept_environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| KEPT_VARIABLES.iter().any(|kept| name == kept))
}

/// Returns a command of the container engine. The child is killed when it is dropped.
pub(crate) fn docker() -> Command {
    let mut command = Command::new("docker");
    command
        .env_clear()
        .envs(kept_environment())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs a command to its end and returns its output. A failure contains its standard error.
pub(crate) async fn said<C: std::fmt::Display>(
    mut command: Command,
    code: ExitCode,
    doing: impl Fn() -> C,
) -> Result<String> {
    let output = command.output().await.or_fail(code, &doing)?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let message = format!("{}: {} ({})", doing(), stderr.trim(), output.status);
        return Err(Failure::new(code, message));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
