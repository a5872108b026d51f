//! The small state of a stack, in one SSM parameter: that it ever had a committed backup.
//!
//! The parameter lives apart from the bucket on purpose: it tells a first boot from a lost or wrong bucket.

use aws_sdk_ssm::Client;
use serde::{Deserialize, Serialize};

use super::parameter;
use crate::error::Result;
use crate::id::{BackupId, StackName};
use crate::layout;

/// The schema that this version writes, and the newest that it reads.
const SCHEMA_VERSION: u32 = 1;

/// What is remembered of a stack outside of its bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackState {
    /// The schema of the writer.
    pub schema_version: u32,
    /// The first committed backup, or the newest one of the time when the parameter had to be written again.
    pub first_backup: BackupId,
}

impl StackState {
    /// Says that this stack has had backups since `first_backup`.
    pub fn since(first_backup: BackupId) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            first_backup,
        }
    }

    /// Reads a parameter's value.
    pub fn parse(value: &str, stack: &StackName) -> Result<Self> {
        parameter::parse(&layout::state_parameter(stack), value, SCHEMA_VERSION)
    }
}

/// Reads a stack's state; none where the stack never had a backup.
pub async fn read(client: &Client, stack: &StackName) -> Result<Option<StackState>> {
    parameter::read(client, &layout::state_parameter(stack), SCHEMA_VERSION).await
}

/// Writes a stack's state unless there is one, as of a committed backup; tells whether it did.
///
/// It is read first: SSM allows many more reads a second than writes, and one write is all that a stack ever needs.
pub async fn ensure(client: &Client, stack: &StackName, backup: &BackupId) -> Result<bool> {
    if read(client, stack).await?.is_some() {
        return Ok(false);
    }
    let name = layout::state_parameter(stack);
    let written = parameter::put(client, &name, &StackState::since(backup.clone()), false).await;
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.aws_code() == Some("ParameterAlreadyExists") => Ok(false),
        Err(error) => Err(error),
    }
}
