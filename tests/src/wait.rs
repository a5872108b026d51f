//! Waiting for a condition with a deadline: the only way anything here lets time pass.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::bail;

const INTERVAL: Duration = Duration::from_millis(20);

/// Polls until the condition answers `Ok(Some(value))`.
///
/// `Ok(None)` means not yet, and `Err(status)` not yet because of that status. When the deadline is over, the
/// error says what was waited for and what the last status was.
pub async fn wait_for<T, S: Display>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Result<Option<T>, S>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    loop {
        let status = match condition().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => "not yet".to_owned(),
            Err(status) => status.to_string(),
        };
        if Instant::now() >= end {
            bail!("waited {deadline:?} in vain for {what}; the last status was: {status}");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_timeout_names_the_last_status() {
        let mut tries = 0;
        let outcome: anyhow::Result<()> =
            wait_for("the moon", Duration::from_millis(50), async || {
                tries += 1;
                Err(format!("try {tries}"))
            })
            .await;
        let error = outcome.unwrap_err().to_string();
        assert_eq!(
            error,
            format!("waited 50ms in vain for the moon; the last status was: try {tries}")
        );
        assert!(tries > 1);
    }

    #[tokio::test]
    async fn the_value_ends_the_wait() {
        let mut tries = 0;
        let found = wait_for("three", Duration::from_secs(5), async || {
            tries += 1;
            Ok::<_, String>((tries == 3).then_some(tries))
        })
        .await;
        assert_eq!(found.unwrap(), 3);
    }
}
