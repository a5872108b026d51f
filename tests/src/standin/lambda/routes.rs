//! The Runtime API, which the processes of the functions call.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::environment::{Environment, failure};
use super::{FunctionError, Inner};
use crate::lock::lock;

/// The largest payload that Lambda accepts, in bytes.
const PAYLOAD_LIMIT: usize = 6 << 20;

type Shared = State<Arc<Inner>>;
type Reply = Response<Body>;

pub(super) fn routes(lambda: Arc<Inner>) -> Router {
    const INVOCATION: &str = "/{environment}/2018-06-01/runtime/invocation";
    Router::new()
        .route(&format!("{INVOCATION}/next"), get(next))
        .route(&format!("{INVOCATION}/{{id}}/response"), post(response))
        .route(&format!("{INVOCATION}/{{id}}/error"), post(error))
        .route(
            "/{environment}/2018-06-01/runtime/init/error",
            post(init_error),
        )
        .layer(DefaultBodyLimit::max(PAYLOAD_LIMIT))
        .with_state(lambda)
}

fn environment(lambda: &Inner, id: &str) -> Option<Arc<Environment>> {
    lock(&lambda.environments).get(id).cloned()
}

async fn next(State(lambda): Shared, Path(id): Path<String>) -> Reply {
    let Some(environment) = environment(&lambda, &id) else {
        return StatusCode::FORBIDDEN.into_response();
    };
    let (job, start) = environment.next().await;
    if let Some(start) = start {
        lock(&lambda.cold_starts).push((environment.function.clone(), start));
    }
    let Some(job) = job else {
        return StatusCode::GONE.into_response();
    };
    let deadline = job.deadline.duration_since(UNIX_EPOCH).unwrap_or_default();
    let headers = [
        ("lambda-runtime-aws-request-id", job.id.clone()),
        (
            "lambda-runtime-deadline-ms",
            deadline.as_millis().to_string(),
        ),
        (
            "lambda-runtime-invoked-function-arn",
            environment.arn.clone(),
        ),
        ("lambda-runtime-trace-id", format!("Root=1-{}", job.id)),
        ("content-type", "application/json".to_owned()),
    ];
    environment.working_on(job.id, job.reply);
    (headers, job.payload.to_string()).into_response()
}

async fn response(
    State(lambda): Shared,
    Path((environment, id)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let result = match serde_json::from_slice(&body) {
        Ok(value) => Ok(value),
        Err(error) => Err(failure("Runtime.InvalidResponse", &error.to_string())),
    };
    answered(&lambda, &environment, &id, result)
}

async fn error(
    State(lambda): Shared,
    Path((environment, id)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    answered(&lambda, &environment, &id, Err(reported(&body)))
}

fn answered(
    lambda: &Inner,
    environment_id: &str,
    id: &str,
    result: Result<Value, FunctionError>,
) -> Reply {
    let known = environment(lambda, environment_id);
    if known.is_some_and(|environment| environment.answer(id, result)) {
        return (StatusCode::ACCEPTED, r#"{"status":"OK"}"#).into_response();
    }
    let body = json!({"errorType": "InvalidRequestID", "errorMessage": "Invalid request ID"});
    (StatusCode::BAD_REQUEST, body.to_string()).into_response()
}

async fn init_error(State(lambda): Shared, Path(id): Path<String>, body: Bytes) -> Reply {
    if let Some(environment) = environment(&lambda, &id) {
        environment.failed_to_start(reported(&body));
    }
    (StatusCode::ACCEPTED, r#"{"status":"OK"}"#).into_response()
}

/// Reads the error that a function reports.
fn reported(body: &[u8]) -> FunctionError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| body[name].as_str().unwrap_or("Unknown").to_owned();
    FunctionError {
        error_type: text("errorType"),
        message: text("errorMessage"),
    }
}
