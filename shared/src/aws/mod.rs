//! The AWS calls: domain types in, domain types out, one API operation per function.
//!
//! Functions take the concrete client of their service. The seam for tests is the endpoint
//! (`AWS_ENDPOINT_URL`), so that what is tested is what is shipped.

pub mod autoscaling;
pub mod breaker;
pub mod catalog;
pub mod manifests;
mod parameter;
pub mod s3;
pub mod ssm;
pub mod state;
mod status;

use std::error::Error as StdError;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::{HttpClient as _, SharedCredentialsProvider, SharedHttpClient};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::DateTime;
use aws_smithy_http_client::Builder as HttpClient;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::http_client_fn;
use time::OffsetDateTime;

use crate::env::Endpoints;
use crate::error::Error;

/// A client that the first call makes: an event needs some of them, and a function that starts needs none.
pub type Lazy<C> = LazyLock<C, Box<dyn FnOnce() -> C + Send>>;

/// Makes a client when it is first used.
pub fn lazy<C>(make: impl FnOnce() -> C + Send + 'static) -> Lazy<C> {
    LazyLock::new(Box::new(make))
}

/// The clients of both functions.
#[derive(Debug)]
pub struct Aws {
    /// EC2 Auto Scaling.
    pub autoscaling: Lazy<aws_sdk_autoscaling::Client>,
    /// Systems Manager.
    pub ssm: Lazy<aws_sdk_ssm::Client>,
    /// S3.
    pub s3: Lazy<aws_sdk_s3::Client>,
}

impl Aws {
    /// Prepares the clients, whose credentials are in the variables that Lambda sets; nothing is called yet.
    ///
    /// The SDK's default chain would look for them in files, containers and the instance's metadata, too, where a function
    /// has none: that was 7 % of its package, and 10 % of each start.
    pub fn connect(aws: Endpoints) -> Self {
        // A call may take a minute with its retries: far below the function's own 15 minutes, so that a call
        // that hangs becomes an error with a name instead of a dead invocation.
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(Duration::from_secs(20))
            .operation_timeout(Duration::from_mins(1))
            .build();
        let mut config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .credentials_provider(SharedCredentialsProvider::new(
                EnvironmentVariableCredentialsProvider::new(),
            ))
            .http_client(http_client())
            .retry_config(RetryConfig::standard().with_max_attempts(4))
            .timeout_config(timeouts);
        config.set_region(aws.region.map(Region::new));
        config.set_endpoint_url(aws.endpoint);
        let config = Arc::new(config.build());
        Self {
            autoscaling: client(&config, aws_sdk_autoscaling::Client::new),
            ssm: client(&config, aws_sdk_ssm::Client::new),
            s3: client(&config, aws_sdk_s3::Client::new),
        }
    }
}

fn client<C: 'static>(config: &Arc<SdkConfig>, new: fn(&SdkConfig) -> C) -> Lazy<C> {
    let config = Arc::clone(config);
    lazy(move || new(&config))
}

/// Makes what clients of AWS connect by, with ring's cryptography: the SDK's own choice makes larger packages.
///
/// The machine's root certificates are read by the first request. By itself, this client would read them for nothing
/// when the client of a service is made, once more for each: that was most of a function's start.
pub fn http_client() -> SharedHttpClient {
    let client = HttpClient::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    http_client_fn(move |settings, components| client.http_connector(settings, components))
}

/// What the services call an overload, none of which their models declare.
const THROTTLING: &[&str] = &[
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "RateExceeded",
    "ResourceContention",
    "SlowDown",
    "RequestTimeout",
    "RequestTimeoutException",
    "InternalServerError",
    "InternalFailure",
    "ServiceUnavailable",
    "OperationAborted",
];

/// Turns what the SDK says of a failed call into the one error of this crate.
pub fn failed<E>(operation: &'static str) -> impl Fn(SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    move |error| {
        let status = error
            .raw_response()
            .map(|response| response.status().as_u16());
        let code = match (error.code(), &error, status) {
            (Some(code), ..) => code.to_owned(),
            (None, SdkError::TimeoutError(_), _) => "Timeout".to_owned(),
            (None, SdkError::DispatchFailure(_), _) => "NotSent".to_owned(),
            (None, SdkError::ConstructionFailure(_), _) => "NotBuilt".to_owned(),
            // The answer to a HEAD has no body that could name a code.
            (None, _, Some(403)) => "AccessDenied".to_owned(),
            (None, _, Some(404)) => "NotFound".to_owned(),
            (None, _, Some(status)) => format!("Http{status}"),
            (None, _, None) => "Unknown".to_owned(),
        };
        let retryable = match &error {
            SdkError::TimeoutError(_) | SdkError::ResponseError(_) => true,
            SdkError::DispatchFailure(failure) => !failure.is_user(),
            SdkError::ServiceError(_) => {
                THROTTLING.contains(&code.as_str())
                    || status.is_some_and(|status| status == 429 || status >= 500)
            }
            _ => false,
        };
        Error::Aws {
            operation,
            code,
            retryable,
            source: Box::new(error),
        }
    }
}

/// Reads a time of the SDK; none where it lies outside the years that can be written.
fn utc(time: &DateTime) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(time.as_nanos()).ok()
}

#[cfg(test)]
mod tests;
