//! The small state of an application, in one SSM parameter: that it ever had a committed backup.
//!
//! The parameter lives apart from the bucket on purpose: it tells a first boot from a lost or wrong bucket.

use aws_sdk_ssm::Client;
use serde::{Deserialize, Serialize};

use super::parameter;
use crate::error::Result;
use crate::id::{ApplicationName, BackupId};
use crate::layout;

/// The schema that this version writes, and the newest that it reads.
const SCHEMA_VERSION: u32 = 1;

/// What is remembered of an application outside of its bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationState {
    /// The schema of the writer.
    pub schema_version: u32,
    /// The first committed backup, or the newest one of the time when the parameter had to be written again.
    pub first_backup: BackupId,
}

impl ApplicationState {
    /// Says that this application has had backups since `first_backup`.
    pub fn since(first_backup: BackupId) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            first_backup,
        }
    }

    /// Reads a parameter's value.
    pub fn parse(value: &str, application: &ApplicationName) -> Result<Self> {
        parameter::parse(&layout::state_parameter(application), value, SCHEMA_VERSION)
    }
}

/// Reads an application's state; none where the application never had a backup.
pub async fn read(
    client: &Client,
    application: &ApplicationName,
) -> Result<Option<ApplicationState>> {
    parameter::read(
        client,
        &layout::state_parameter(application),
        SCHEMA_VERSION,
    )
    .await
}

/// Writes an application's state unless there is one, as of a committed backup; tells whether it did.
///
/// It is read first: SSM allows many more reads a second than writes, and one write is all that an application ever needs.
pub async fn ensure(
    client: &Client,
    application: &ApplicationName,
    backup: &BackupId,
) -> Result<bool> {
    if read(client, application).await?.is_some() {
        return Ok(false);
    }
    let name = layout::state_parameter(application);
    let written = parameter::put(
        client,
        &name,
        &ApplicationState::since(backup.clone()),
        false,
    )
    .await;
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.aws_code() == Some("ParameterAlreadyExists") => Ok(false),
        Err(error) => Err(error),
    }
}
