//! The backup function: schedule ticks, finished backups, the terminate hook, and the operator's requests.
//!
//! Read `handle` for what is done about each event, `decide` for why, and `commit` for when a backup exists.

mod admission;
mod catch_up;
mod commit;
mod commits;
mod curate;
pub mod decide;
mod failures;
mod function;
mod handle;
mod images;
mod outcome;
mod request;
mod retire;
mod settle;
mod start;
mod stored;
mod terminate;
#[cfg(test)]
mod testing;
mod tick;

use std::process::ExitCode;

use crate::function::Function;

/// Serves Lambda until it ends the process.
#[tokio::main(flavor = "current_thread")]
pub async fn serve() -> ExitCode {
    shared::lambda::serve(Function::new, handle::handle).await
}
