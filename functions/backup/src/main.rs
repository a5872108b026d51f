//! The backup function: schedule ticks, finished backups, the terminate hook, and the operator's requests.
//!
//! Read `handle` for what is done about each event, `decide` for why, and `commit` for when a backup exists.

mod catch_up;
mod commit;
mod decide;
mod failures;
mod function;
mod handle;
mod outcome;
mod request;
mod settle;
mod start;
mod terminate;
#[cfg(test)]
mod testing;
mod tick;

use std::process::ExitCode;

use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::Value;
use shared::aws::Aws;
use shared::env::Config;

use crate::function::Function;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    shared::log::init();
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("{error:?}");
            return ExitCode::FAILURE;
        }
    };
    let function = Function::new(Aws::connect().await, config);
    let handler = service_fn(|event: LambdaEvent<Value>| handle::handle(&function, event));
    match lambda_runtime::run(handler).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("the Lambda runtime ended: {error}");
            ExitCode::FAILURE
        }
    }
}
