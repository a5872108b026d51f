//! The life of a function's process: its log, its environment, its clients, and then one event after the other.

use std::process::ExitCode;

use lambda_runtime::{LambdaEvent, service_fn};
use serde::Serialize;
use serde_json::Value;

use crate::aws::Aws;
use crate::env::{Config, Whereabouts};
use crate::error::Result;
use crate::log;

/// Serves Lambda until it ends the process. Without a complete environment nothing is served.
///
/// `set_up` makes what the handler works with, once; `handle` is called for each event.
pub async fn serve<T, R: Serialize>(
    set_up: impl FnOnce(Aws, Config) -> T,
    handle: impl AsyncFn(&T, LambdaEvent<Value>) -> Result<R>,
) -> ExitCode {
    log::init();
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("{error:?}");
            return ExitCode::FAILURE;
        }
    };
    let function = set_up(Aws::connect(Whereabouts::from_env()), config);
    let handler = service_fn(|event| handle(&function, event));
    match lambda_runtime::run(handler).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("the Lambda runtime ended: {error}");
            ExitCode::FAILURE
        }
    }
}
