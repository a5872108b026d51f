//! The bucket of backups: its client, uploads and downloads.

pub(crate) mod download;
pub(crate) mod open_uploads;
mod parts;
pub(crate) mod upload;

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};

use shared::Result;
use shared::aws::http_client;
use shared::aws::s3::{self, Head};

use crate::agent::watchdog::Progress;
use crate::s3::open_uploads::OpenUploads;
use crate::settings::Settings;

/// Attempts per call.
const ATTEMPTS: u32 = 5;

/// How long S3 may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long S3 may take to begin its answer, including the time to send the largest part.
const READ_TIMEOUT: Duration = Duration::from_mins(2);

/// The bucket of backups, and the state of the transfers to and from it.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    /// The client for the bucket's region.
    pub(crate) client: Client,
    /// The bucket's name.
    pub(crate) name: String,
    /// The multipart uploads that must be aborted before the agent exits.
    pub(crate) uploads: OpenUploads,
    /// The counter that every transfer touches.
    pub(crate) progress: Progress,
}

impl Bucket {
    /// Makes the client: credentials come from the default chain, the region from the settings or else from the
    /// instance.
    ///
    /// The SDK adds no checksums of its own. Every uploaded object carries the CRC-64/NVME that the agent computed,
    /// which S3 verifies; every download is checked against a SHA-256.
    pub(crate) async fn open(
        settings: &Settings,
        progress: &Progress,
        uploads: &OpenUploads,
    ) -> Self {
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
        Self {
            client: Client::from_conf(config),
            name: settings.bucket.clone(),
            uploads: uploads.clone(),
            progress: progress.clone(),
        }
    }

    /// Returns the metadata of an object, or `None` if there is none.
    ///
    /// A node may not list the bucket, so S3 denies access to an object that does not exist.
    pub(crate) async fn head(&self, key: &str, version: Option<&str>) -> Result<Option<Head>> {
        match s3::head(&self.client, &self.name, key, version).await {
            Err(error) if error.aws_code() == Some("AccessDenied") => Ok(None),
            answer => answer,
        }
    }
}
