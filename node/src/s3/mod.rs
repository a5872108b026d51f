//! The client for the bucket of backups.

pub(crate) mod download;
pub(crate) mod open_uploads;
pub(crate) mod upload;

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};

use shared::aws::http_client;

use crate::settings::Settings;

/// Tries per call. A part that could not be sent five times will not be sent by this agent.
const ATTEMPTS: u32 = 5;

/// How long S3 may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long S3 may take to begin its answer, the sending of the largest part included.
const READ_TIMEOUT: Duration = Duration::from_mins(2);

/// Makes the client: credentials from the default chain, the region from the settings or else the instance's.
///
/// The SDK adds no checksums of its own: every object carries our CRC-64/NVME, which the bucket verifies, and
/// every download is checked against a SHA-256.
pub(crate) async fn client(settings: &Settings) -> Client {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http_client())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(READ_TIMEOUT)
                .build(),
        );
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    let shared = loader.load().await;
    let config = aws_sdk_s3::config::Builder::from(&shared)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Client::from_conf(config)
}
