//! Ends an operation that makes no progress, and measures the agent's memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shared::exit_code::ExitCode;
use tokio::time::Instant;

use crate::agent::failure::Failure;

/// The pause between two checks.
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// A counter that changes whenever bytes move or a step finishes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Records progress.
    pub(crate) fn touch(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for a step that has a time limit of its own. The stall limit does not apply to it.
    pub(crate) async fn without_stall_limit<T>(&self, step: impl Future<Output = T>) -> T {
        let touching = async {
            loop {
                self.touch();
                tokio::time::sleep(CHECK_EVERY).await;
            }
        };
        tokio::select! {
            done = step => done,
            never = touching => never,
        }
    }

    /// Waits until there has been no progress for `limit`, and returns the failure `Stalled`.
    pub(crate) async fn stalled(&self, limit: Duration) -> Failure {
        let mut seen = self.0.load(Ordering::Relaxed);
        let mut since = Instant::now();
        loop {
            tokio::time::sleep(CHECK_EVERY.min(limit)).await;
            let now = self.0.load(Ordering::Relaxed);
            if now != seen {
                seen = now;
                since = Instant::now();
            } else if since.elapsed() >= limit {
                let message = format!(
                    "no progress for {} s, the limit of stall_limit_seconds in the settings",
                    limit.as_secs()
                );
                return Failure::new(ExitCode::Stalled, message);
            }
        }
    }
}

/// Returns the agent's peak resident memory in KiB, or 0 if the kernel does not report it.
pub(crate) fn peak_memory_kib() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| peak_of(&status))
        .unwrap_or(0)
}

fn peak_of(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_memory_is_read_from_the_kernel() {
        assert_eq!(peak_of("Name:\tx\nVmHWM:\t   12345 kB\n"), Some(12345));
        assert_eq!(peak_of("Name:\tx\n"), None);
        assert!(peak_memory_kib() > 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_is_no_progress_for_the_whole_limit() {
        let progress = Progress::default();
        let limit = Duration::from_secs(10);
        let toucher = {
            let progress = progress.clone();
            async move {
                for _ in 0..5 {
                    tokio::time::sleep(Duration::from_secs(8)).await;
                    progress.touch();
                }
                std::future::pending::<()>().await;
            }
        };
        let started = Instant::now();
        let failure = tokio::select! {
            failure = progress.stalled(limit) => failure,
            () = toucher => unreachable!("the toucher never ends"),
        };
        assert_eq!(failure.code, ExitCode::Stalled);
        let elapsed = started.elapsed().as_secs();
        assert!((50..=51).contains(&elapsed), "{elapsed}");
    }
}
