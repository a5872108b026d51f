//! Being told to stop: what runs must then clean up after itself, so the signal must not end the process.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Waits for Ctrl-C or a polite request to end.
pub async fn interruption() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed.context("wait for Ctrl-C"),
        _ = terminate.recv() => Ok(()),
    }
}
