//! Lambda: takes, commits and deletes backups. `handle` has a row for each event.
//!
//! `start` sends backup commands, `finished` decides when a backup exists, `terminating` waits for final backups.
//! Modules named `decide` contain the rules: they make no calls and read no clock.

mod answer;
mod commit_markers;
pub mod finished;
mod groups;
mod handle;
pub mod hook;
mod objects;
mod reconcile;
pub mod requests;
pub mod retention;
pub mod start;
mod sweep;
pub mod terminating;
#[cfg(test)]
mod testing;
pub mod tick;

use std::process::ExitCode;

/// Serves Lambda until it ends the process.
#[tokio::main(flavor = "current_thread")]
pub async fn serve() -> ExitCode {
    shared::function::lambda::serve(handle::handle).await
}
