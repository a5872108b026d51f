//! Asks the instance who it is: `IMDSv2`.

use std::time::Duration;

use aws_config::provider_config::ProviderConfig;
use shared::aws::http_client;
use shared::id::InstanceId;
use shared::report::ExitCode;

use crate::agent::failure::{OrFail as _, Result};

/// How long one of four attempts may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns the id of the instance that the agent runs on.
pub(crate) async fn instance_id() -> Result<InstanceId> {
    // The SDK would wait a second; a machine that boots under load may take longer.
    let client = aws_config::imds::Client::builder()
        .configure(&ProviderConfig::without_region().with_http_client(http_client()))
        .connect_timeout(PATIENCE)
        .read_timeout(PATIENCE)
        .build();
    let text = client
        .get("/latest/meta-data/instance-id")
        .await
        .or_fail(ExitCode::Internal, || {
            "ask the instance metadata service for the instance id (is IMDS switched on for this instance?)"
        })?;
    let text: &str = text.as_ref();
    text.trim().parse().or_fail(
        ExitCode::Internal,
        || "read the instance id from the metadata service",
    )
}
