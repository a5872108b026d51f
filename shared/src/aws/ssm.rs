//! Systems Manager: the state of the SSM agents, and the commands that are sent to them.

mod query;
mod status;

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::operation::get_command_invocation::GetCommandInvocationOutput;
use aws_sdk_ssm::types::{
    Command, CommandFilter, CommandFilterKey, CommandInvocationStatus, CommandStatus,
    InstanceInformationStringFilter, PingStatus,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use self::query::CommandQuery;
pub use self::status::{CommandEnd, InvocationStatus};
use super::{failed, utc};
use crate::command::{AGENT_STEP, FETCH_STEP, Parameters};
use crate::error::{Error, Result};
use crate::exit_code::ExitCode;
use crate::id::{CommandId, InstanceId};

/// The most instances that one call may name.
pub const MOST_INSTANCES: usize = 50;

/// The most tries to read an invocation: SSM returns `InvocationDoesNotExist` for a few seconds after a command was
/// sent.
const INVOCATION_TRIES: u32 = 5;
/// The pause between two of these tries.
const INVOCATION_PAUSE: Duration = Duration::from_millis(500);
/// The response code of a step that did not run.
const NEVER_RUN: i32 = -1;

/// The state of an instance's SSM agent. The agent pings every five minutes, so `Online` may be out of date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ping {
    /// The agent's last ping arrived.
    Online,
    /// The agent's pings are missing.
    ConnectionLost,
}

/// Returns the state of the instances' SSM agents. An instance that is not registered is absent.
///
/// # Errors
/// [`Error::Aws`] if SSM fails.
pub async fn ping(client: &Client, instances: &[InstanceId]) -> Result<HashMap<InstanceId, Ping>> {
    let mut pings = HashMap::new();
    let mut chunks: Vec<&[InstanceId]> = instances.chunks(MOST_INSTANCES).collect();
    while let Some(chunk) = chunks.pop() {
        match ping_chunk(client, chunk).await {
            Ok(found) => pings.extend(found),
            // SSM usually leaves out an unknown id, but its documentation allows that it refuses the call.
            Err(error) if refuses_instance(&error) => {
                if chunk.len() > 1 {
                    let (left, right) = chunk.split_at(chunk.len() / 2);
                    chunks.extend([left, right]);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(pings)
}

async fn ping_chunk(client: &Client, chunk: &[InstanceId]) -> Result<Vec<(InstanceId, Ping)>> {
    const OPERATION: &str = "ssm:DescribeInstanceInformation";
    let filter = InstanceInformationStringFilter::builder()
        .key("InstanceIds")
        .set_values(Some(chunk.iter().map(InstanceId::to_string).collect()))
        .build()
        .map_err(|error| not_built(OPERATION, error))?;
    let mut pages = client
        .describe_instance_information()
        .filters(filter)
        .into_paginator()
        .page_size(50)
        .items()
        .send();
    let mut pings = Vec::new();
    while let Some(information) = pages.next().await {
        let information = information.map_err(failed(OPERATION))?;
        let instance = information.instance_id().and_then(|id| id.parse().ok());
        let ping = match information.ping_status() {
            Some(PingStatus::Online) => Ping::Online,
            _ => Ping::ConnectionLost,
        };
        pings.extend(instance.map(|instance| (instance, ping)));
    }
    Ok(pings)
}

/// Returns whether SSM refused a call because of an instance: its agent is not registered, it was terminated, or the
/// function may not command it. SSM returns neither the instance nor the reason.
pub fn refuses_instance(error: &Error) -> bool {
    error.aws_code() == Some("InvalidInstanceId")
}

/// A command in SSM's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRecord {
    /// The command.
    pub command_id: CommandId,
    /// When it was sent.
    pub requested_at: OffsetDateTime,
    /// The parameters of its document.
    pub parameters: Parameters,
    /// The instances that it was sent to.
    pub instance_ids: Vec<InstanceId>,
    /// The status of the command as a whole.
    pub status: InvocationStatus,
}

/// Returns the commands of a query, newest first as SSM lists them.
///
/// # Errors
/// [`Error::Aws`] if SSM fails.
pub async fn commands(client: &Client, query: CommandQuery<'_>) -> Result<Vec<CommandRecord>> {
    const OPERATION: &str = "ssm:ListCommands";
    let CommandQuery {
        document,
        since,
        executing_only,
        instance,
    } = query;
    // SSM requires whole seconds and a Z. So up to a second more is listed, and filtered out below.
    let whole = since
        .to_offset(time::UtcOffset::UTC)
        .replace_nanosecond(0)
        .unwrap_or(since);
    let after = whole
        .format(&Rfc3339)
        .map_err(|error| not_built(OPERATION, error))?;
    let mut filters = vec![(CommandFilterKey::DocumentName, document.to_owned())];
    filters.push((CommandFilterKey::InvokedAfter, after));
    if executing_only {
        filters.push((CommandFilterKey::ExecutionStage, "Executing".to_owned()));
    }
    let filters = filters
        .into_iter()
        .map(|(key, value)| CommandFilter::builder().key(key).value(value).build())
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|error| not_built(OPERATION, error))?;
    let mut pages = client
        .list_commands()
        .set_instance_id(instance.map(InstanceId::to_string))
        .set_filters(Some(filters))
        .into_paginator()
        .page_size(50)
        .items()
        .send();
    let mut commands = Vec::new();
    while let Some(command) = pages.next().await {
        let command = command.map_err(failed(OPERATION))?;
        commands.extend(read_command(&command).filter(|command| command.requested_at >= since));
    }
    Ok(commands)
}

/// Returns a command from SSM's history, or `None` if it is not there (any more).
///
/// # Errors
/// [`Error::Aws`] if SSM fails.
pub async fn command(client: &Client, command_id: &CommandId) -> Result<Option<CommandRecord>> {
    let listed = client
        .list_commands()
        .command_id(command_id.as_str())
        .send()
        .await
        .map_err(failed("ssm:ListCommands"));
    match listed {
        Ok(listed) => Ok(listed.commands().first().and_then(read_command)),
        Err(error) if error.aws_code() == Some("InvalidCommandId") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the status of a command on each of its instances. The list is empty for a few seconds after the command was
/// sent.
///
/// # Errors
/// [`Error::Aws`] if SSM fails.
pub async fn invocations(
    client: &Client,
    command_id: &CommandId,
) -> Result<Vec<(InstanceId, InvocationStatus)>> {
    let mut pages = client
        .list_command_invocations()
        .command_id(command_id.as_str())
        .into_paginator()
        .page_size(50)
        .items()
        .send();
    let mut invocations = Vec::new();
    while let Some(invocation) = pages.next().await {
        let invocation = invocation.map_err(failed("ssm:ListCommandInvocations"))?;
        let status = invocation.status().map(CommandInvocationStatus::as_str);
        let status = InvocationStatus::read(status, invocation.status_details());
        let instance = invocation.instance_id().and_then(|id| id.parse().ok());
        invocations.extend(instance.map(|instance| (instance, status)));
    }
    Ok(invocations)
}

/// The result of a command on one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The status.
    pub status: InvocationStatus,
    /// The agent's exit status; -1 before it has ended.
    pub response_code: i32,
    /// The beginning of the agent's standard output; empty until it has ended.
    pub output: String,
    /// The beginning of the agent's standard error; empty until it has ended.
    pub errors: String,
}

impl Invocation {
    /// Returns the agent's exit code, or `None` if the exit status is not one of [`ExitCode::ALL`]. If the step did not
    /// run, the agent could not be fetched: [`ExitCode::AgentMismatch`].
    pub fn exit_code(&self) -> Option<ExitCode> {
        if self.response_code == NEVER_RUN {
            return Some(ExitCode::AgentMismatch);
        }
        u8::try_from(self.response_code).ok()?.try_into().ok()
    }
}

/// Returns the result of a command on one instance, or `None` if SSM does not list it there after five tries.
///
/// If the agent did not run, [`Invocation::errors`] are those of the step that fetches it.
///
/// # Errors
/// [`Error::Aws`] if SSM fails.
pub async fn invocation(
    client: &Client,
    command_id: &CommandId,
    instance: &InstanceId,
) -> Result<Option<Invocation>> {
    let mut step = Some(AGENT_STEP);
    let mut tries = 1;
    let invocation = loop {
        match step_result(client, command_id, instance, step).await {
            Ok(invocation) => break invocation,
            // SSM has no steps of a command that ended before its first one.
            Err(error) if step.is_some() && error.aws_code() == Some("InvalidPluginName") => {
                step = None;
            }
            Err(error) if error.aws_code() == Some("InvocationDoesNotExist") => {
                if tries >= INVOCATION_TRIES {
                    return Ok(None);
                }
                tries += 1;
                tokio::time::sleep(INVOCATION_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    };
    if step.is_none()
        || invocation.status != InvocationStatus::Failed
        || invocation.response_code != NEVER_RUN
    {
        return Ok(Some(invocation));
    }
    let fetched = step_result(client, command_id, instance, Some(FETCH_STEP)).await;
    let reason = match &fetched {
        Ok(fetched) => fetched.errors.trim(),
        // The failed step is known, and only the reason is missing.
        Err(_) => "SSM does not return the reason",
    };
    Ok(Some(Invocation {
        errors: format!("{FETCH_STEP} failed: {reason}"),
        ..invocation
    }))
}

/// Returns the result of one step of a command, or of the command as a whole if `step` is `None`.
async fn step_result(
    client: &Client,
    command_id: &CommandId,
    instance: &InstanceId,
    step: Option<&str>,
) -> Result<Invocation> {
    let answer = client
        .get_command_invocation()
        .command_id(command_id.as_str())
        .instance_id(instance.as_str())
        .set_plugin_name(step.map(str::to_owned))
        .send()
        .await
        .map_err(failed("ssm:GetCommandInvocation"))?;
    Ok(read_invocation(&answer))
}

/// Sends a command to at most [`MOST_INSTANCES`] instances, and returns its id. `delivery` is the time, in seconds, in
/// which their SSM agents have to accept it.
///
/// SSM has no idempotency token. If a response is lost, the SDK sends a second command, and the agent runs the
/// operation only once.
///
/// # Errors
/// [`Error::Aws`] if SSM fails. SSM refuses the whole call because of one unknown instance: see [`refuses_instance`].
pub async fn send(
    client: &Client,
    document: &str,
    instances: &[InstanceId],
    parameters: Parameters,
    delivery: u32,
    comment: &str,
) -> Result<CommandId> {
    const OPERATION: &str = "ssm:SendCommand";
    let sent = client
        .send_command()
        .document_name(document)
        .set_instance_ids(Some(instances.iter().map(InstanceId::to_string).collect()))
        .set_parameters(Some(parameters))
        .timeout_seconds(i32::try_from(delivery).unwrap_or(i32::MAX))
        .comment(comment.chars().take(100).collect::<String>())
        .max_concurrency("50")
        // The failure of one application must not stop the others of its batch.
        .max_errors("100%")
        .send()
        .await
        .map_err(failed(OPERATION))?;
    let id = sent
        .command()
        .and_then(Command::command_id)
        .unwrap_or_default();
    id.parse()
        .map_err(|error| Error::contract("the response of ssm:SendCommand", format!("{error}")))
}

/// Cancels a command. The agent may still have run it: check its status afterwards.
///
/// # Errors
/// [`Error::Aws`] if SSM fails.
pub async fn cancel(client: &Client, command_id: &CommandId) -> Result<()> {
    client
        .cancel_command()
        .command_id(command_id.as_str())
        .send()
        .await
        .map_err(failed("ssm:CancelCommand"))?;
    Ok(())
}

/// Returns the command, or `None` if it has no valid id or time: Rekindle did not send it.
fn read_command(command: &Command) -> Option<CommandRecord> {
    let status = command.status().map(CommandStatus::as_str);
    Some(CommandRecord {
        command_id: command.command_id()?.parse().ok()?,
        requested_at: command.requested_date_time().and_then(utc)?,
        parameters: command.parameters().cloned().unwrap_or_default(),
        instance_ids: command
            .instance_ids()
            .iter()
            .filter_map(|id| id.parse().ok())
            .collect(),
        status: InvocationStatus::read(status, command.status_details()),
    })
}

fn read_invocation(answer: &GetCommandInvocationOutput) -> Invocation {
    let status = answer.status().map(CommandInvocationStatus::as_str);
    Invocation {
        status: InvocationStatus::read(status, answer.status_details()),
        response_code: answer.response_code(),
        output: answer
            .standard_output_content()
            .unwrap_or_default()
            .to_owned(),
        errors: answer
            .standard_error_content()
            .unwrap_or_default()
            .to_owned(),
    }
}

fn not_built(
    operation: &'static str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::Aws {
        operation,
        code: "NotBuilt".to_owned(),
        retryable: false,
        source: Box::new(error),
    }
}

#[cfg(test)]
mod tests;
