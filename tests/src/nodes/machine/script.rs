//! Runs a script as the SSM agent does: `sh -c <file>` in a process group of its own, and SIGKILL to the whole group
//! after the timeout.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// A script and its limits.
#[derive(Debug, Clone)]
pub struct Script {
    /// The id of the command that it belongs to.
    pub command: String,
    /// The step's name.
    pub step: String,
    /// The text. Its first line may name an interpreter.
    pub text: String,
    /// How long it may run.
    pub limit: Duration,
    /// Becomes true when the command is cancelled.
    pub cancel: watch::Receiver<bool>,
}

/// How a script ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptEnd {
    /// Its exit code; 137 if it was killed.
    pub code: i32,
    /// Whether it was killed after the timeout.
    pub timed_out: bool,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs a script in `directory` and waits for its end.
pub(super) async fn run(
    script: &Script,
    directory: &Path,
    root: &Path,
    environment: BTreeMap<String, String>,
) -> Result<ScriptEnd> {
    let context = || format!("prepare {}", directory.display());
    std::fs::create_dir_all(directory).with_context(context)?;
    let program = directory.join("_script.sh");
    super::write_program(&program, &script.text)?;
    // Files instead of pipes, as in the agent: a daemon that keeps a pipe open would keep the script alive.
    let (stdout, stderr) = (directory.join("stdout"), directory.join("stderr"));
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(&program)
        .env_clear()
        .envs(environment)
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(File::create(&stdout).with_context(context)?)
        .stderr(File::create(&stderr).with_context(context)?)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let (code, timed_out) = wait(&mut child, script).await?;
    let end = ScriptEnd {
        code,
        timed_out,
        stdout: read(&stdout),
        stderr: read(&stderr),
    };
    // The disk is gone if the node was terminated meanwhile.
    if let Err(error) = std::fs::remove_dir_all(directory.parent().unwrap_or(directory))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::debug!(%error, directory = %directory.display(), "remove the script's directory");
    }
    Ok(end)
}

fn read(path: &PathBuf) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns the exit code, and whether the script was killed after the timeout.
async fn wait(child: &mut Child, script: &Script) -> Result<(i32, bool)> {
    let group = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    let mut cancel = script.cancel.clone();
    let cancelled = async move {
        if cancel.wait_for(|cancelled| *cancelled).await.is_err() {
            // The command no longer exists, so nobody can cancel it.
            std::future::pending::<()>().await;
        }
    };
    let timed_out = tokio::select! {
        status = child.wait() => {
            let status = status.context("wait for the script")?;
            let signal = status.signal().map(|signal| 128 + signal);
            return Ok((status.code().or(signal).unwrap_or(-1), false));
        }
        () = tokio::time::sleep(script.limit) => true,
        () = cancelled => false,
    };
    if let Some(group) = group {
        kill_process_group(group, Signal::KILL).context("kill the script's process group")?;
    }
    child.wait().await.context("wait for the killed script")?;
    Ok((137, timed_out))
}
