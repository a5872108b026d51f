//! Lambda: no instance enters service before its data are back. See `handle` for what happens to an event, and
//! `decide` for the rules.

mod act;
mod attempt;
mod choose;
mod decide;
mod gather;
mod handle;
mod reason;

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let set_up = |aws, config| (aws, config);
    shared::lambda::serve(set_up, async |(aws, config), event| {
        handle::handle(aws, config, event).await
    })
    .await
}
