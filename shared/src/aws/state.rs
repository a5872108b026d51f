//! The state of an application, in one SSM parameter: it exists if the application ever had a committed backup.
//!
//! The parameter is outside the bucket on purpose: it distinguishes a first boot from a lost or wrong bucket.

use aws_sdk_ssm::Client;
use serde::{Deserialize, Serialize};

use super::parameter;
use crate::error::Result;
use crate::id::{ApplicationName, BackupId};
use crate::layout;

/// The schema version that this version of Rekindle writes, and the newest that it reads.
const SCHEMA_VERSION: u32 = 1;

/// The state of an application outside its bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationState {
    /// The writer's schema version.
    pub schema_version: u32,
    /// The first committed backup, or the newest one when a lost parameter was written again.
    pub first_backup: BackupId,
}

impl ApplicationState {
    /// Returns the state of an application that has had backups since `first_backup`.
    pub fn since(first_backup: BackupId) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            first_backup,
        }
    }

    /// Parses the value of the application's parameter.
    ///
    /// # Errors
    /// [`crate::Error::Contract`] if the value cannot be parsed or has a newer schema.
    pub fn parse(value: &str, application: &ApplicationName) -> Result<Self> {
        parameter::parse(&layout::state_parameter(application), value, SCHEMA_VERSION)
    }
}

/// Returns an application's state, or `None` if it never had a backup.
///
/// # Errors
/// [`crate::Error::Contract`] if the parameter cannot be parsed or has a newer schema, [`crate::Error::Aws`] if SSM
/// fails.
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

/// Writes an application's state with this committed backup if there is none, and returns whether it did.
///
/// Reads the state first, because SSM allows many more reads than writes per second, and an application needs only one
/// write.
///
/// # Errors
/// Those of [`read`], and [`crate::Error::Aws`] if the parameter cannot be written.
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
