//! Sends backup commands in batches. An instance that SSM refuses does not keep the command from the others of its
//! batch.

#[cfg(test)]
mod tests;

use shared::aws::ssm::{self, MOST_INSTANCES};
use shared::command::{BackupCommand, Purpose};
use shared::function::agent;
use shared::function::context::Context;
use shared::function::failure::Failures;
use shared::id::{CommandId, InstanceId, Subject};
use shared::{Error, Result, budget};
use tracing::info;

use super::decide::{Skip, Target};
use crate::answer::Started;

/// The message of the ERROR line if the command for a node was not sent.
const NOT_STARTED: &str = "no backup was started";
const BATCH_NOT_SENT: &str = "a batch of backup commands was not sent";

/// Requests a backup from one node. An error is recorded.
///
/// # Errors
/// [`Error::Refused`] if SSM refuses the instance.
pub(crate) async fn to_one(
    context: &Context,
    command: &BackupCommand,
    target: Target,
) -> Result<Started> {
    let error = match send(context, command, std::slice::from_ref(&target.instance)).await {
        Ok(command_id) => return Ok(started(target, command, &command_id)),
        Err(error) if ssm::refuses_instance(&error) => refused(&target.instance, &error),
        Err(error) => error,
    };
    Err(error.recorded(context, subject(&target), NOT_STARTED))
}

/// Requests the same backup from many nodes. A failure concerns only the nodes of its batch.
pub(crate) async fn to_all(
    context: &Context,
    command: &BackupCommand,
    targets: &[Target],
    failures: &mut Failures<'_>,
) -> Vec<Started> {
    let mut all_started = Vec::new();
    let mut batches: Vec<Vec<Target>> = targets.chunks(MOST_INSTANCES).map(<[_]>::to_vec).collect();
    while let Some(batch) = batches.pop() {
        match send(context, command, &instances(&batch)).await {
            Ok(command_id) => {
                let batch = batch.into_iter();
                all_started.extend(batch.map(|target| started(target, command, &command_id)));
            }
            Err(error) if ssm::refuses_instance(&error) => {
                batches.extend(without_refused(context, batch, error, failures).await);
            }
            Err(error) => fail(&batch, error, failures),
        }
    }
    all_started
}

/// Sends the backup document to some instances. Publishes the agent first, since the document fetches it.
pub(crate) async fn send(
    context: &Context,
    command: &BackupCommand,
    instances: &[InstanceId],
) -> Result<CommandId> {
    let config = &context.config;
    let agent = agent::publish(&context.aws, config).await?;
    let execution = match command.purpose {
        Purpose::Final => budget::FINAL_EXECUTION,
        _ => budget::BACKUP_EXECUTION,
    };
    let parameters = command.parameters(&agent, execution);
    let (purpose, backup) = (command.purpose.as_str(), &command.backup_id);
    ssm::send(
        &context.aws.ssm,
        &config.backup_document,
        instances,
        parameters,
        budget::DELIVERY,
        &format!("Rekindle {purpose} backup {backup}"),
    )
    .await
}

/// Logs a sent command and returns its part of the answer.
fn started(target: Target, command: &BackupCommand, command_id: &CommandId) -> Started {
    info!(
        application = %target.application,
        backup_id = %command.backup_id,
        instance_id = %target.instance,
        %command_id,
        purpose = command.purpose.as_str(),
        decision = "start",
        "requested a backup"
    );
    Started {
        application: target.application,
        instance_id: target.instance,
        backup_id: command.backup_id.clone(),
        command_id: command_id.clone(),
    }
}

/// Records the failure of a whole batch once, and logs each application that has no backup because of it.
fn fail(batch: &[Target], error: Error, failures: &mut Failures<'_>) {
    if let [target] = batch {
        failures.add(subject(target), NOT_STARTED, error);
        return;
    }
    let reason = error.chain();
    for target in batch {
        info!(
            application = %target.application,
            instance_id = %target.instance,
            decision = "skip",
            reason,
            "{NOT_STARTED}"
        );
    }
    failures.add(Subject::default(), BATCH_NOT_SENT, error);
}

/// Returns the batches that remain after SSM refused an instance of a batch.
///
/// SSM does not name the instance. Its pings show which agents do not answer; if they all do, the batch is halved
/// until the refused instance is alone.
async fn without_refused(
    context: &Context,
    batch: Vec<Target>,
    error: Error,
    failures: &mut Failures<'_>,
) -> Vec<Vec<Target>> {
    if let [target] = batch.as_slice() {
        let refused = refused(&target.instance, &error);
        failures.add(subject(target), NOT_STARTED, refused);
        return Vec::new();
    }
    let pings = ssm::ping(&context.aws.ssm, &instances(&batch)).await;
    let Some(pings) = failures.keep(Subject::default(), BATCH_NOT_SENT, pings) else {
        return Vec::new();
    };
    let (count, mut good) = (batch.len(), Vec::new());
    for target in batch {
        let ping = pings.get(&target.instance).copied();
        match Skip::of_ping(ping, &target.instance) {
            None => good.push(target),
            Some(skip) => {
                let refused = Error::Refused(skip.to_string());
                failures.add(subject(&target), NOT_STARTED, refused);
            }
        }
    }
    if good.is_empty() {
        return Vec::new();
    }
    if good.len() == count {
        let rest = good.split_off(good.len() / 2);
        return vec![good, rest];
    }
    vec![good]
}

fn refused(instance: &InstanceId, error: &Error) -> Error {
    let chain = error.chain();
    Error::Refused(format!(
        "SSM refuses {instance}: {chain}; check its role and its SSM agent"
    ))
}

fn instances(batch: &[Target]) -> Vec<InstanceId> {
    batch.iter().map(|target| target.instance.clone()).collect()
}

fn subject(target: &Target) -> Subject<'_> {
    Subject {
        instance_id: Some(&target.instance),
        ..Subject::application(&target.application)
    }
}
