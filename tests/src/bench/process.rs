//! Runs a program to its end, and measures the resources of its whole process tree.
//!
//! The kernel adds a child's usage to its parent's when the parent waits for it. The usage is therefore read after the
//! program has ended and before it is waited for: then it covers the whole tree.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::sample::Sample;
use crate::repository::project;

/// The interval between two samples of a running tree's memory.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(5);

/// A program, its arguments and its whole environment.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// The program and its arguments.
    pub(super) line: Vec<String>,
    /// Its environment.
    pub(super) environment: BTreeMap<String, String>,
}

impl Program {
    /// Returns a bash script that stops at the first failing command, also within a pipe.
    pub(super) fn script(script: &str, environment: BTreeMap<String, String>) -> Self {
        Self {
            line: ["bash", "-euo", "pipefail", "-c", script]
                .map(str::to_owned)
                .to_vec(),
            environment,
        }
    }
}

/// The result of a program.
#[derive(Debug)]
pub(super) struct Run {
    /// Its resources.
    pub(super) sample: Sample,
    /// Its standard output.
    pub(super) output: String,
}

/// Returns the path of one of the bench's Python scripts.
pub(super) fn python_script(name: &str) -> PathBuf {
    project().join("tests/src/bench/python").join(name)
}

/// Runs a program without blocking the runtime that serves it. A program that fails is an error.
pub(super) async fn run(program: Program) -> Result<Run> {
    tokio::task::spawn_blocking(move || measure(&program))
        .await
        .context("measure a program")?
}

fn measure(program: &Program) -> Result<Run> {
    let directory = tempfile::tempdir().context("make a directory for the output")?;
    let (output, errors) = (directory.path().join("out"), directory.path().join("err"));
    let [name, arguments @ ..] = &program.line[..] else {
        anyhow::bail!("there is no program to run");
    };
    let began = Instant::now();
    let mut child = Command::new(name)
        .args(arguments)
        .env_clear()
        .envs(&program.environment)
        .stdin(Stdio::null())
        .stdout(fs::File::create(&output)?)
        .stderr(fs::File::create(&errors)?)
        .spawn()
        .with_context(|| format!("run {name}"))?;
    let id = child.id();
    let (done, waiting) = channel::<()>();
    let sampling = std::thread::spawn(move || {
        let mut peak = 0;
        while waiting.recv_timeout(SAMPLE_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            peak = peak.max(resident_kib(id));
        }
        peak
    });
    let pid = Pid::from_raw(i32::try_from(id)?).context("a process has an id")?;
    let ended = waitid(
        WaitId::Pid(pid),
        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    );
    let seconds = began.elapsed().as_secs_f64();
    // The process has ended, and its files in /proc still exist.
    let (cpu, disk) = (cpu_seconds(id), written_bytes(id));
    drop(done);
    let peak = sampling.join().unwrap_or_default();
    ended.context("wait for a program")?;
    let status = child.wait().context("wait for a program")?;
    let output = fs::read_to_string(&output)?;
    let errors = fs::read_to_string(&errors)?;
    ensure!(
        status.success(),
        "{} ended with {status}: {output}{errors}",
        program.line.join(" ")
    );
    Ok(Run {
        sample: Sample {
            seconds,
            cpu_seconds: Some(cpu?),
            peak_kib: Some(peak),
            disk_bytes: Some(disk?),
            ..Sample::default()
        },
        output,
    })
}

/// Returns the resident memory of a process and all its descendants, in KiB. Shared pages count for each process.
pub(super) fn resident_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let own = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|kib| kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .unwrap_or(0);
    let below: u64 = children(process).into_iter().map(resident_kib).sum();
    own + below
}

fn children(process: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return found;
    };
    for thread in threads.flatten() {
        // A thread that has ended meanwhile has no children.
        let listed = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        found.extend(
            listed
                .split(' ')
                .filter_map(|child| child.parse::<u32>().ok()),
        );
    }
    found
}

/// Returns the user and system seconds of a process and of all descendants that were waited for.
fn cpu_seconds(process: u32) -> Result<f64> {
    let (own, waited_for) = ticks(process)?;
    Ok(seconds(own + waited_for))
}

/// Returns the user and system seconds of a running process and of all its descendants, including those that ended.
pub(super) fn cpu_seconds_of_tree(process: u32) -> Result<f64> {
    let (own, waited_for) = ticks(process)?;
    let mut all = own + waited_for;
    for child in children(process) {
        let (own, waited_for) = ticks(child).unwrap_or_default();
        all += own + waited_for;
    }
    Ok(seconds(all))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "ticks of minutes, not of millennia"
)]
fn seconds(ticks: u64) -> f64 {
    // USER_HZ of proc(5) is 100 on every platform of EC2.
    ticks as f64 / 100.0
}

/// Returns the clock ticks of a process itself, and of the children that it has waited for.
fn ticks(process: u32) -> Result<(u64, u64)> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // The name may contain spaces and brackets.
    let (_, rest) = stat
        .rsplit_once(") ")
        .with_context(|| format!("read {path}"))?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let field = |number: usize| -> Result<u64> {
        let text = fields.get(number).with_context(|| format!("read {path}"))?;
        text.parse().with_context(|| format!("read {path}"))
    };
    // The state is field 3 of proc(5), utime field 14.
    Ok((field(11)? + field(12)?, field(13)? + field(14)?))
}

/// Returns the bytes that a process, and all descendants that were waited for, caused to be written to disk.
fn written_bytes(process: u32) -> Result<u64> {
    let path = format!("/proc/{process}/io");
    let io = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.trim().parse().ok())
        .with_context(|| format!("{path} has no write_bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> BTreeMap<String, String> {
        BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())])
    }

    #[test]
    fn the_resources_of_a_program_include_its_children() {
        let file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        // Each in a process of its own: 8 MB onto the disk, 64 MiB of memory, and some time.
        let script = format!(
            "head -c 8000000 /dev/zero > {}; (dd if=/dev/zero of=/dev/null bs=64M count=8 2>/dev/null); echo done",
            file.path().display()
        );
        let run = measure(&Program::script(&script, environment())).unwrap();
        assert_eq!(run.output, "done\n");
        let sample = run.sample;
        assert!(sample.disk_bytes.unwrap() >= 8_000_000, "{sample:?}");
        assert!(sample.peak_kib.unwrap() >= 64 * 1024, "{sample:?}");
        assert!(sample.cpu_seconds.unwrap() > 0.0, "{sample:?}");
        assert!(
            sample.seconds >= sample.cpu_seconds.unwrap() / 4.0,
            "{sample:?}"
        );
    }

    #[test]
    fn a_failure_within_a_pipe_is_an_error() {
        let failure = measure(&Program::script("echo why >&2; false | cat", environment()));
        let message = format!("{:#}", failure.unwrap_err());
        assert!(message.contains("why"), "{message}");
    }
}
