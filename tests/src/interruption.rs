//! Waits for an interruption, so that a program can clean up instead of ending at the signal.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Waits for Ctrl-C or SIGTERM.
pub async fn interruption() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed.context("wait for Ctrl-C"),
        _ = terminate.recv() => Ok(()),
    }
}
