//! Finds and signals every process of a node: by its environment, its working directory, its program or, in a
//! container, its control group. Postgres and daemons leave the script's process group, so the group is not enough.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::nodes::engine::control_group;
use crate::nodes::process_ids;

/// How long killed processes may take to end.
const LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// Kills every process of the node, and those that they start meanwhile, until there is none.
pub(super) async fn kill_all(root: &Path) -> Result<()> {
    let root = root.to_owned();
    let killing = tokio::task::spawn_blocking(move || kill_all_blocking(&root));
    killing.await.context("kill a node's processes")?
}

/// Does the same as [`kill_all`] where nothing can be awaited.
#[expect(
    clippy::disallowed_methods,
    reason = "it sleeps between two checks of a condition, up to a deadline"
)]
pub(super) fn kill_all_blocking(root: &Path) -> Result<()> {
    let end = Instant::now() + LIMIT;
    let mut none_before = false;
    loop {
        let left = signal_all(root, Signal::KILL)?;
        // During its `exec`, a process has no environment, and may not be found.
        if left == 0 && none_before {
            return Ok(());
        }
        none_before = left == 0;
        ensure!(
            left == 0 || Instant::now() < end,
            "{left} processes below {} still run after SIGKILL",
            root.display()
        );
        std::thread::sleep(POLL);
    }
}

/// Sends a signal to every process of the node. Returns the number of processes.
pub(super) fn signal_all(root: &Path, signal: Signal) -> Result<usize> {
    let mut count = 0;
    for number in process_ids()? {
        let Some(pid) = Pid::from_raw(number) else {
            continue;
        };
        if belongs(number, root) {
            count += 1;
            // A process that ended meanwhile needs no signal.
            if let Err(error) = kill_process(pid, signal)
                && error != rustix::io::Errno::SRCH
            {
                return Err(error).with_context(|| format!("signal process {number}"));
            }
        }
    }
    Ok(count)
}

/// Returns whether a process belongs to the node with this root.
fn belongs(number: i32, root: &Path) -> bool {
    if u32::try_from(number).is_ok_and(|number| number == std::process::id()) {
        return false;
    }
    let process = Path::new("/proc").join(number.to_string());
    if is_zombie(&process) {
        return false;
    }
    let below = |link: &str| {
        let target = std::fs::read_link(process.join(link));
        target.is_ok_and(|target| target.starts_with(root))
    };
    let marked = || {
        let marker = [b"REKINDLE_ROOT=", root.as_os_str().as_bytes()].concat();
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == marker)
    };
    let contained = || {
        let id = root.parent().and_then(Path::file_name);
        let Some(id) = id.and_then(|id| id.to_str()) else {
            return false;
        };
        let groups = std::fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        groups.contains(&format!("{}/", control_group(id)))
    };
    below("cwd") || below("exe") || marked() || contained()
}

/// Returns whether a process is dead and only waits to be reaped.
fn is_zombie(process: &Path) -> bool {
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    matches!(state, None | Some(Some('Z' | 'X')))
}
