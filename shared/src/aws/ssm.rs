//! Systems Manager: which agents answer, and the commands that are sent to them.

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

pub use super::status::{CommandEnd, InvocationStatus};
use super::{failed, utc};
use crate::command::{AGENT_STEP, FETCH_STEP, Parameters};
use crate::error::{Error, Result};
use crate::id::{CommandId, InstanceId};
use crate::report::ExitCode;

/// The most instances that one call may name.
pub const MOST_INSTANCES: usize = 50;

/// SSM answers "there is no such invocation" for a few seconds after a command was sent.
const INVOCATION_TRIES: u32 = 5;
const INVOCATION_PAUSE: Duration = Duration::from_millis(500);
/// The response code of a step that was not started.
const NEVER_RUN: i32 = -1;

/// Whether an instance's SSM agent answers. It pings every five minutes, so `Online` may be stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ping {
    /// The agent answered its last ping.
    Online,
    /// It did not.
    ConnectionLost,
}

/// Asks which agents answer. An instance that is not registered is absent from the result.
pub async fn ping(client: &Client, instances: &[InstanceId]) -> Result<HashMap<InstanceId, Ping>> {
    let mut pings = HashMap::new();
    let mut chunks: Vec<&[InstanceId]> = instances.chunks(MOST_INSTANCES).collect();
    while let Some(chunk) = chunks.pop() {
        match ping_chunk(client, chunk).await {
            Ok(found) => pings.extend(found),
            // Usually an unknown id is left out of the answer; AWS also documents that it may refuse the call.
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

/// Tells whether a call was refused because of an instance: its agent is not registered, it was terminated, or
/// the function may not command it. AWS does not say which instance, nor which of the three.
pub fn refuses_instance(error: &Error) -> bool {
    error.aws_code() == Some("InvalidInstanceId")
}

/// What SSM remembers of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRecord {
    /// The command.
    pub command_id: CommandId,
    /// When it was sent.
    pub requested_at: OffsetDateTime,
    /// What was asked.
    pub parameters: Parameters,
    /// Of whom.
    pub instance_ids: Vec<InstanceId>,
    /// Where it stands on all of them together.
    pub status: InvocationStatus,
}

/// Which commands of a document to list.
#[derive(Debug, Clone, Copy)]
pub struct CommandQuery<'a> {
    document: &'a str,
    since: OffsetDateTime,
    executing_only: bool,
    instance: Option<&'a InstanceId>,
}

impl<'a> CommandQuery<'a> {
    /// Asks for the commands of a document that were sent since a time.
    pub fn new(document: &'a str, since: OffsetDateTime) -> Self {
        Self {
            document,
            since,
            executing_only: false,
            instance: None,
        }
    }

    /// Asks only for commands that are still executing.
    #[must_use]
    pub fn executing(mut self) -> Self {
        self.executing_only = true;
        self
    }

    /// Asks only for commands that were sent to this instance.
    #[must_use]
    pub fn on(mut self, instance: &'a InstanceId) -> Self {
        self.instance = Some(instance);
        self
    }
}

/// Lists commands, newest first as SSM returns them.
pub async fn commands(client: &Client, query: CommandQuery<'_>) -> Result<Vec<CommandRecord>> {
    const OPERATION: &str = "ssm:ListCommands";
    let CommandQuery {
        document,
        since,
        executing_only,
        instance,
    } = query;
    // SSM wants whole seconds and a Z; one second more is read and left out below.
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

/// Returns what SSM remembers of one command; none where it is unknown or forgotten.
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

/// Lists where a command stands on each of its instances. Empty for a few seconds after it was sent.
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

/// What a command came to on one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Where it stands.
    pub status: InvocationStatus,
    /// The agent's exit code; -1 while it has none.
    pub response_code: i32,
    /// The beginning of its standard output; empty until it is finished.
    pub output: String,
    /// The beginning of its standard error.
    pub errors: String,
}

impl Invocation {
    /// Returns the exit code of the table by which the agent's step failed; none where it is none of the table. Where
    /// the step was never run, there was no agent to run.
    pub fn exit_code(&self) -> Option<ExitCode> {
        if self.response_code == NEVER_RUN {
            return Some(ExitCode::AgentMismatch);
        }
        u8::try_from(self.response_code).ok()?.try_into().ok()
    }
}

/// Returns what a command came to on one instance; none where SSM knows of no such invocation.
///
/// Where the agent was never run, the errors are those of the step that should have fetched it.
pub async fn invocation(
    client: &Client,
    command_id: &CommandId,
    instance: &InstanceId,
) -> Result<Option<Invocation>> {
    let mut step = Some(AGENT_STEP);
    let mut tries = 1;
    let invocation = loop {
        match of_step(client, command_id, instance, step).await {
            Ok(invocation) => break invocation,
            // A command that never reached its steps has none to name.
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
    let fetched = of_step(client, command_id, instance, Some(FETCH_STEP)).await;
    let words = match &fetched {
        Ok(fetched) => fetched.errors.trim(),
        // What failed is known without them.
        Err(_) => "SSM does not say why",
    };
    Ok(Some(Invocation {
        errors: format!("{FETCH_STEP} failed: {words}"),
        ..invocation
    }))
}

/// Asks for one step of a command, or for the command as a whole.
async fn of_step(
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

/// Sends a command to at most [`MOST_INSTANCES`] instances. `delivery` is how long, in seconds, their agents may
/// take to accept it. One unknown instance has the whole call refused: [`refuses_instance`].
///
/// SSM has no token against repetition: a call whose answer was lost is repeated, and the node arbitrates.
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
        // One application's failure must not stop the others of its batch.
        .max_errors("100%")
        .send()
        .await
        .map_err(failed(OPERATION))?;
    let id = sent
        .command()
        .and_then(Command::command_id)
        .unwrap_or_default();
    id.parse()
        .map_err(|error| Error::contract("the answer to ssm:SendCommand", format!("{error}")))
}

/// Asks SSM to cancel a command. Whether it still ran is known only from its status later.
pub async fn cancel(client: &Client, command_id: &CommandId) -> Result<()> {
    client
        .cancel_command()
        .command_id(command_id.as_str())
        .send()
        .await
        .map_err(failed("ssm:CancelCommand"))?;
    Ok(())
}

/// A command without an id, a time or parameters is not one that Rekindle sent.
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
