//! Profiles for rows that missed a goal: Rekindle runs once more under the kernel's profiler.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// Samples per second and core.
const FREQUENCY: &str = "1999";
/// Entries below this share are left out.
const LEAST_PERCENT: &str = "2";
/// The number of functions that are listed.
const FUNCTIONS: usize = 8;

/// A profiler of all cores, until it is stopped.
struct Profiler {
    perf: Child,
    data: PathBuf,
    _directory: TempDir,
}

impl Profiler {
    /// Starts the profiler. It is sampling when this returns.
    fn start() -> Result<Self> {
        let directory = tempfile::tempdir().context("make a directory for a profile")?;
        let data = directory.path().join("perf.data");
        // perf runs the command when sampling has begun, and stops when the command ends: at the end of its input.
        let mut perf = Command::new("perf")
            .args(["record", "--quiet", "--all-cpus", "--freq", FREQUENCY])
            .arg("--output")
            .arg(&data)
            .args(["--", "sh", "-c", "echo begun; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("run perf, which `make bench` installs")?;
        let mut begun = [0; 6];
        let output = perf.stdout.as_mut().context("perf has no output")?;
        let read = output.read_exact(&mut begun);
        read.context("perf record did not begin: check that this user may profile all cores")?;
        Ok(Self {
            perf,
            data,
            _directory: directory,
        })
    }

    /// Stops the profiler, and returns the shares of all cores' time, by program and by function.
    fn stop(mut self) -> Result<Vec<String>> {
        drop(self.perf.stdin.take());
        let ended = self.perf.wait().context("wait for perf")?;
        ensure!(ended.success(), "perf record ended with {ended}");
        let mut lines = vec!["time of all cores while Rekindle ran again, by program:".to_owned()];
        lines.extend(self.report("comm")?);
        lines.push("by function:".to_owned());
        let functions = self.report("comm,dso,symbol")?.into_iter();
        // Idle time is in the first list already.
        let busy = functions.filter(|line| !line.contains("swapper"));
        lines.extend(busy.take(FUNCTIONS));
        Ok(lines)
    }

    fn report(&self, sort: &str) -> Result<Vec<String>> {
        let report = Command::new("perf")
            .args([
                "report",
                "--stdio",
                "--quiet",
                "--percent-limit",
                LEAST_PERCENT,
            ])
            .args(["--sort", sort, "--input"])
            .arg(&self.data)
            .output()
            .context("run perf report")?;
        let errors = String::from_utf8_lossy(&report.stderr);
        ensure!(report.status.success(), "perf report failed: {errors}");
        let text = String::from_utf8_lossy(&report.stdout);
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        Ok(lines.map(squeezed).collect())
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        // A stopped profiler has ended already.
        self.perf.kill().ok();
        self.perf.wait().ok();
    }
}

/// Profiles work, and returns the profile and the work's result. If the profiler cannot start, the work is not done, and
/// the profile is the reason.
pub(super) async fn of<T>(
    work: impl Future<Output = Result<T>>,
) -> Result<(Vec<String>, Option<T>)> {
    let missing = |error: anyhow::Error| vec![format!("no profile: {error:#}")];
    match Profiler::start() {
        Ok(profiler) => {
            let done = work.await?;
            Ok((profiler.stop().unwrap_or_else(missing), Some(done)))
        }
        Err(error) => Ok((missing(error), None)),
    }
}

/// Removes the padding of perf's columns, and marks idle time.
fn squeezed(line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut text = format!("{:>7} ", words.next().unwrap_or_default());
    for word in words.filter(|word| *word != "-") {
        let word = if word == "swapper" {
            "swapper (idle)"
        } else {
            word
        };
        // Writing to a string does not fail.
        write!(text, " {word}").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_perf_becomes_a_share_and_a_name() {
        let line = "    12.34%  postgres        postgres            [.] btree_xlog_insert          -      -";
        assert_eq!(
            squeezed(line),
            " 12.34%  postgres postgres [.] btree_xlog_insert"
        );
        assert_eq!(squeezed("  5.00%  swapper"), "  5.00%  swapper (idle)");
    }
}
