//! Waits for a condition with a deadline. Tests use no other way to let time pass.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::bail;

const INTERVAL: Duration = Duration::from_millis(20);

/// Polls a condition until it returns `Ok(Some(value))`, and returns the value.
///
/// `Ok(None)` means not yet, and `Err(status)` means not yet, with the status as the reason. After the deadline, the
/// error contains `what` and the last status.
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
            bail!("timed out after {deadline:?} waiting for {what}; last status: {status}");
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
            format!("timed out after 50ms waiting for the moon; last status: try {tries}")
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
