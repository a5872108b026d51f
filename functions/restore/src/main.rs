//! Lambda: no instance enters service before its data are back. See `handle` for what happens to an event, and
//! `decide` for the rules.

mod act;
mod attempt;
mod choose;
mod decide;
mod gather;
mod handle;
mod reason;

use lambda_runtime::{Diagnostic, LambdaEvent, run, service_fn, tracing};
use serde_json::Value;
use shared::aws::Aws;
use shared::env::Config;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing::init_default_subscriber();
    let config = Config::from_env()?;
    let aws = Aws::connect().await;
    let (aws, config) = (&aws, &config);
    run(service_fn(async |event: LambdaEvent<Value>| {
        handle::handle(aws, config, event)
            .await
            .map_err(Diagnostic::from)
    }))
    .await
}
