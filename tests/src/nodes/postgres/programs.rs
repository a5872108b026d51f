//! Finds the server's programs and runs them: as the user `postgres` if the tests run as root.

use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::process::Command;

/// Returns the directory with the programs of the newest installed server, or an error if there is no server.
pub fn bin_directory() -> Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        for version in versions {
            let version = version?;
            let number = version
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let bin = version.path().join("bin");
            if let Some(number) = number
                && bin.join("initdb").exists()
            {
                found.push((number, bin));
            }
        }
    }
    if let Some((_, newest)) = found.into_iter().max() {
        return Ok(newest);
    }
    let variables = std::env::vars_os().find(|(name, _)| name == "PATH");
    let path = variables.map(|(_, path)| path).unwrap_or_default();
    let mut directories = std::env::split_paths(&path);
    directories
        .find(|directory| directory.join("initdb").exists())
        .context("there is no PostgreSQL server on this machine; install the package `postgresql`")
}

/// Returns a free port that stays free while the server is down: the kernel takes the ports of outgoing connections
/// from above this range.
pub fn free_port() -> Result<u16> {
    const PORTS: std::ops::Range<u16> = 12_000..32_000;
    for _ in 0..1_000 {
        let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
        let port = PORTS.start + u16::try_from(random % u64::from(PORTS.end - PORTS.start))?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of {PORTS:?} is free on 127.0.0.1")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns a command line that runs the program as the user `postgres`.
pub(super) fn as_postgres(program: &Path, arguments: &[&str]) -> Vec<String> {
    let mut command: Vec<String> = Vec::new();
    if is_root() {
        let drop = [
            "setpriv",
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
        ];
        command.extend(drop.map(str::to_owned));
    }
    command.push(program.to_string_lossy().into_owned());
    command.extend(arguments.iter().map(|&argument| argument.to_owned()));
    command
}

/// Makes the user that the server runs as the owner of a directory.
pub(super) fn chown_to_postgres(path: &Path) -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let fields = users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    for user in fields {
        if let ["postgres", _, uid, gid, ..] = user.as_slice() {
            return chown(path, Some(uid.parse()?), Some(gid.parse()?))
                .context("make postgres the owner of the cluster");
        }
    }
    bail!("there is no user `postgres`; install the package `postgresql`")
}

/// Runs a command line. An error contains its standard error if it fails.
pub(super) async fn run(command: &[String]) -> Result<()> {
    let [program, arguments @ ..] = command else {
        bail!("there is no program to run");
    };
    let output = Command::new(program)
        .args(arguments)
        // The server's user may not be allowed to read the current directory.
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("run {program}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{} ended with {}: {stderr}",
        quoted(command),
        output.status
    );
    Ok(())
}

/// Quotes arguments for a shell.
pub(super) fn quoted(arguments: &[String]) -> String {
    let arguments = arguments
        .iter()
        .map(|one| format!("'{}'", one.replace('\'', r"'\''")));
    arguments.collect::<Vec<_>>().join(" ")
}
