//! Lambda: restores the data of a launching instance before it may enter service. `handle` maps each event to
//! its folder.

mod answer;
pub mod attempts;
pub mod breaker;
mod exceptions;
mod handle;
pub mod in_place;
pub mod launch;
mod requests;
mod sweep;

use std::process::ExitCode;

/// Serves Lambda until it ends the process.
#[tokio::main(flavor = "current_thread")]
pub async fn serve() -> ExitCode {
    shared::function::lambda::serve(handle::handle).await
}
