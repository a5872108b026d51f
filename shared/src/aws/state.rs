//! The small state of a stack, in one SSM parameter: that it ever had a committed backup.
//!
//! The parameter lives apart from the bucket on purpose: it tells a first boot from a lost or wrong bucket.

use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::ParameterType;
use serde::{Deserialize, Serialize};

use super::failed;
use crate::error::{Error, Result};
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
}

/// Reads a stack's state; none where the stack never had a backup.
pub async fn read(client: &Client, stack: &StackName) -> Result<Option<StackState>> {
    let name = layout::state_parameter(stack);
    let answer = match client
        .get_parameter()
        .name(&name)
        .send()
        .await
        .map_err(failed("ssm:GetParameter"))
    {
        Ok(answer) => answer,
        Err(error) if error.aws_code() == Some("ParameterNotFound") => return Ok(None),
        Err(error) => return Err(error),
    };
    let value = answer
        .parameter()
        .and_then(|parameter| parameter.value())
        .unwrap_or_default();
    let object = format!("the SSM parameter {name}");
    let state: StackState = serde_json::from_str(value)
        .map_err(|error| Error::contract(object.clone(), format!("not readable: {error}")))?;
    if state.schema_version > SCHEMA_VERSION {
        let problem = format!(
            "newer schema version {}, this Rekindle reads up to {SCHEMA_VERSION}: deploy the newer version again",
            state.schema_version
        );
        return Err(Error::contract(object, problem));
    }
    Ok(Some(state))
}

/// Writes a stack's state unless there is one, as of a committed backup; tells whether it did.
///
/// It is read first: SSM allows many more reads a second than writes, and one write is all that a stack ever needs.
pub async fn ensure(client: &Client, stack: &StackName, backup: &BackupId) -> Result<bool> {
    if read(client, stack).await?.is_some() {
        return Ok(false);
    }
    let name = layout::state_parameter(stack);
    let value = serde_json::to_string(&StackState::since(backup.clone()))
        .map_err(|error| Error::contract(format!("the SSM parameter {name}"), error.to_string()))?;
    let sent = client
        .put_parameter()
        .name(&name)
        .value(value)
        .r#type(ParameterType::String)
        .overwrite(false)
        .send()
        .await
        .map_err(failed("ssm:PutParameter"));
    match sent {
        Ok(_) => Ok(true),
        Err(error) if error.aws_code() == Some("ParameterAlreadyExists") => Ok(false),
        Err(error) => Err(error),
    }
}
