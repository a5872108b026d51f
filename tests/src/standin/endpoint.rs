//! The HTTP handler in front of all services. It finds the service in the signature of a request.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;

use crate::standin::autoscaling;
use crate::standin::autoscaling::{ACCOUNT, AutoScaling};
use crate::standin::fault::{ApiCall, ApiError, ApiResult, PlannedFaults};
use crate::standin::lambda::Lambda;
use crate::standin::s3::S3;
use crate::standin::ssm;
use crate::standin::ssm::Ssm;

/// The largest request to a service other than S3, in bytes.
const MAX_BYTES: usize = 8 * 1024 * 1024;
const STS: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// The services behind the listener.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) auto_scaling: Arc<AutoScaling>,
    pub(crate) ssm: Arc<Ssm>,
    pub(crate) s3: S3,
    pub(crate) lambda: Lambda,
    pub(crate) planned: Arc<PlannedFaults>,
}

/// Answers one request.
pub(crate) async fn handle(State(services): State<Services>, request: Request<Body>) -> Response {
    let scope = scope(&request);
    let service = scope.as_deref().and_then(|scope| scope.split('/').nth(3));
    let service = service.map(str::to_owned);
    let access_key = scope.as_deref().and_then(|scope| scope.split('/').next());
    let access_key = access_key.unwrap_or_default().to_owned();
    if service.as_deref().is_none_or(|service| service == "s3") {
        // S3 refuses unsigned requests.
        return services.s3.handle(request).await;
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BYTES).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let call = ApiCall {
        service: service.clone().unwrap_or_default(),
        operation: operation(&parts.headers, &body),
        access_key,
    };
    if let Err(error) = services.planned.ask(&call) {
        return match service.as_deref() {
            Some("autoscaling") => xml(Err(error)),
            _ => json(Err(error)),
        };
    }
    match service.as_deref() {
        Some("autoscaling") => xml(autoscaling::answer(
            &services.auto_scaling,
            &services.planned,
            &body,
        )),
        Some("ssm") => {
            let target = parts.headers.get("x-amz-target");
            let target = target.and_then(|target| target.to_str().ok());
            let target = target.unwrap_or_default();
            json(ssm::answer(&services.ssm, &services.planned, target, &body))
        }
        Some("sts") => xml(Ok(caller_identity())),
        Some("lambda") => {
            invoke(
                &services,
                &parts.method,
                parts.uri.path(),
                &parts.headers,
                &body,
            )
            .await
        }
        other => {
            let message = format!("the stand-in has no service {other:?}");
            json(Err(ApiError::with_status(501, "NotImplemented", message)))
        }
    }
}

/// Returns the credential scope of a request's signature: `<access key>/<date>/<region>/<service>/aws4_request`.
fn scope(request: &Request<Body>) -> Option<String> {
    let header = request.headers().get(header::AUTHORIZATION);
    let header = header.and_then(|value| value.to_str().ok());
    let scope = header.and_then(|value| {
        let (_, rest) = value.split_once("Credential=")?;
        rest.split([',', ' ']).next().map(str::to_owned)
    });
    let query = request.uri().query().unwrap_or_default();
    scope.or_else(|| {
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        let credential = pairs.find(|(name, _)| name == "X-Amz-Credential");
        credential.map(|(_, value)| value.into_owned())
    })
}

/// Returns the operation that a request names, in the JSON or the Query protocol. Empty if it names none.
fn operation(headers: &HeaderMap, body: &[u8]) -> String {
    let target = headers.get("x-amz-target");
    if let Some((_, operation)) = target
        .and_then(|target| target.to_str().ok())
        .and_then(|target| target.split_once('.'))
    {
        return operation.to_owned();
    }
    let mut pairs = url::form_urlencoded::parse(body);
    let action = pairs.find(|(name, _)| name == "Action");
    action.map_or_else(String::new, |(_, value)| value.into_owned())
}

fn xml(result: ApiResult<String>) -> Response {
    let (status, body) = match result {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => (status(&error), autoscaling::error_response(&error)),
    };
    (status, [(header::CONTENT_TYPE, "text/xml")], body).into_response()
}

fn json(result: ApiResult<Value>) -> Response {
    let (status, body) = match result {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => (status(&error), ssm::error_response(&error)),
    };
    let kind = [(header::CONTENT_TYPE, "application/x-amz-json-1.1")];
    (status, kind, body.to_string()).into_response()
}

fn status(error: &ApiError) -> StatusCode {
    StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn caller_identity() -> String {
    let result = autoscaling::Xml::default()
        .text("Arn", format!("arn:aws:iam::{ACCOUNT}:user/stand-in"))
        .text("UserId", "AIDASTANDIN")
        .text("Account", ACCOUNT);
    autoscaling::response("GetCallerIdentity", STS, &result)
}

/// Answers `POST /2015-03-31/functions/<name>/invocations`.
async fn invoke(
    services: &Services,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Response {
    let name = path
        .strip_prefix("/2015-03-31/functions/")
        .and_then(|rest| rest.strip_suffix("/invocations"));
    let Some(name) = name.filter(|_| method == Method::POST) else {
        return json(Err(ApiError::with_status(
            404,
            "ResourceNotFoundException",
            format!("{method} {path} is not an operation of this stand-in's Lambda"),
        )));
    };
    let payload = if body.is_empty() {
        Ok(Value::Null)
    } else {
        serde_json::from_slice(body)
    };
    let payload: Value = match payload {
        Ok(payload) => payload,
        Err(error) => {
            let message = format!("Could not parse request body into json: {error}");
            return json(Err(ApiError::new(
                "InvalidRequestContentException",
                message,
            )));
        }
    };
    let kind = headers.get("x-amz-invocation-type");
    if kind.is_some_and(|kind| kind == "Event") {
        services.lambda.invoke_async(name, payload);
        return StatusCode::ACCEPTED.into_response();
    }
    match services.lambda.invoke(name, payload).await {
        Ok(value) => (StatusCode::OK, value.to_string()).into_response(),
        Err(error) => {
            let body = serde_json::json!({
                "errorType": error.error_type, "errorMessage": error.message,
            });
            let headers = [("x-amz-function-error", "Unhandled")];
            (StatusCode::OK, headers, body.to_string()).into_response()
        }
    }
}
