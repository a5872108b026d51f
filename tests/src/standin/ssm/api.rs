//! The JSON 1.1 API: calls the function for each operation.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Ssm, inventory, list, request, send};
use crate::lock::lock;
use crate::standin::fault::{ApiError, ApiResult, PlannedFaults};

/// Answers one request. `target` is the header `X-Amz-Target`, such as `AmazonSSM.SendCommand`.
pub fn answer(
    ssm: &Arc<Ssm>,
    planned: &PlannedFaults,
    target: &str,
    body: &[u8],
) -> ApiResult<Value> {
    let operation = target.strip_prefix("AmazonSSM.").unwrap_or_default();
    planned.take(operation)?;
    let request: Value = if body.is_empty() {
        json!({})
    } else {
        serde_json::from_slice(body)
            .map_err(|error| ApiError::new("SerializationException", error.to_string()))?
    };
    match operation {
        "SendCommand" => send::command(ssm, &request),
        "CancelCommand" => send::cancel(ssm, &request),
        "ListCommands" => list::commands(ssm, &request),
        "ListCommandInvocations" => list::invocations(ssm, &request),
        "GetCommandInvocation" => list::invocation(ssm, &request),
        "DescribeInstanceInformation" => inventory::describe(ssm, &request),
        "PutParameter" => lock(&ssm.state).parameters.put(&request),
        "GetParameter" => lock(&ssm.state).parameters.get(&request, &ssm.pace.region),
        "DeleteParameter" => lock(&ssm.state).parameters.delete(&request),
        "GetParametersByPath" => lock(&ssm.state)
            .parameters
            .by_path(&request, &ssm.pace.region),
        _ => Err(request::validation(format!(
            "The stand-in has no operation {target:?}"
        ))),
    }
}

/// Returns the body of an error answer.
pub fn error_response(error: &ApiError) -> Value {
    json!({"__type": error.code, "message": error.message})
}
