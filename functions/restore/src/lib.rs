//! Lambda: no instance enters service before its data are back. See `handle` for what happens to an event, and
//! `decide` for the rules.

mod act;
pub mod attempt;
pub mod choose;
mod circuit;
pub mod decide;
mod gather;
mod handle;
mod in_place;
pub mod reason;
mod request;
mod sweep;

use std::process::ExitCode;

/// Serves Lambda until it ends the process.
#[tokio::main(flavor = "current_thread")]
pub async fn serve() -> ExitCode {
    let set_up = |aws, config| (aws, config);
    shared::lambda::serve(set_up, async |(aws, config), event| {
        handle::handle(aws, config, event).await
    })
    .await
}
