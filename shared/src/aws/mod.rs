//! The AWS calls, with the types of this crate.
//!
//! Functions take the client of their service. End-to-end tests set the endpoint (`AWS_ENDPOINT_URL`) to a stand-in for
//! AWS, so they test the shipped code.

pub mod autoscaling;
pub mod breaker;
pub mod catalog;
pub mod manifests;
mod parameter;
pub mod s3;
pub mod ssm;
pub mod state;

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

use crate::error::Error;

/// A client that is made at its first use. Most events need only some of the clients.
pub type Lazy<C> = LazyLock<C, Box<dyn FnOnce() -> C + Send>>;

/// Returns a client that `make` makes at its first use.
pub fn lazy<C>(make: impl FnOnce() -> C + Send + 'static) -> Lazy<C> {
    LazyLock::new(Box::new(make))
}

/// The region and the endpoint of AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// The region. Lambda always sets it.
    pub region: Option<String>,
    /// The URL of a stand-in for AWS, or `None` for AWS itself.
    pub endpoint: Option<String>,
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
    /// Returns the clients without a call. They take their credentials from the variables that Lambda sets.
    ///
    /// The SDK's default chain also searches files, containers and the instance's metadata, where a function has no
    /// credentials. That chain would be 7 % of the package and 10 % of each start.
    pub fn connect(aws: Endpoints) -> Self {
        // A call with its retries may take a minute. That is far below the function's 15 minutes, so a call that hangs
        // becomes an error instead of a timeout of the invocation.
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

/// Returns the HTTP client of all AWS clients, with ring's cryptography: the SDK's default makes larger packages.
///
/// It reads the root certificates once, at the first request. The SDK's own client would read them again for each
/// service, which would take most of a function's start.
pub fn http_client() -> SharedHttpClient {
    let client = HttpClient::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    http_client_fn(move |settings, components| client.http_connector(settings, components))
}

/// The services' error codes for an overload. Their models do not declare them.
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

/// Returns a function that converts an error of the SDK into [`Error::Aws`]. `operation` is the API operation, as IAM
/// writes it.
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
            // The answer to a HEAD request has no body, so it has no code.
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

/// Returns a time of the SDK, or `None` if its year is out of range.
fn utc(time: &DateTime) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(time.as_nanos()).ok()
}

#[cfg(test)]
mod tests;
