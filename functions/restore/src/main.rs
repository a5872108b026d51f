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

use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::Value;
use shared::aws::Aws;
use shared::env::Config;

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
    let aws = Aws::connect().await;
    let (aws, config) = (&aws, &config);
    let handler = service_fn(|event: LambdaEvent<Value>| handle::handle(aws, config, event));
    match lambda_runtime::run(handler).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("the Lambda runtime ended: {error}");
            ExitCode::FAILURE
        }
    }
}
