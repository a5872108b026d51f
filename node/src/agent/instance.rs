//! Reads the instance's id from the instance metadata service (`IMDSv2`).

use std::time::Duration;

use aws_config::provider_config::ProviderConfig;
use shared::aws::http_client;
use shared::exit_code::ExitCode;
use shared::id::InstanceId;

use crate::agent::failure::{OrFail as _, Result};

/// The time limit of each of the four attempts. The SDK's default is one second; an instance that boots under load
/// needs longer.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);

/// Returns the id of the instance that the agent runs on.
pub(crate) async fn instance_id() -> Result<InstanceId> {
    let client = aws_config::imds::Client::builder()
        .configure(&ProviderConfig::without_region().with_http_client(http_client()))
        .connect_timeout(ATTEMPT_LIMIT)
        .read_timeout(ATTEMPT_LIMIT)
        .build();
    let text = client
        .get("/latest/meta-data/instance-id")
        .await
        .or_fail(ExitCode::Internal, || {
            "cannot read the instance id from the instance metadata service; check that IMDS is enabled for this instance"
        })?;
    let text: &str = text.as_ref();
    text.trim().parse().or_fail(
        ExitCode::Internal,
        || "cannot parse the instance id from the instance metadata service",
    )
}
