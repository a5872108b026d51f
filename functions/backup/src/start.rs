//! Sending backup commands in batches, so that one instance which SSM refuses does not cost the others theirs.

#[cfg(test)]
mod tests;

use shared::aws::ssm::{self, MOST_INSTANCES, Ping};
use shared::command::BackupCommand;
use shared::id::{ApplicationName, CommandId, InstanceId};
use shared::{Error, Result, agent, budget};
use tracing::info;

use crate::decide::Skip;
use crate::failures::Failures;
use crate::function::Function;
use crate::outcome::Started;

/// Asks for the same backup on many instances. Whatever goes wrong with some is a failure of theirs alone.
pub(crate) async fn start(
    function: &Function,
    command: &BackupCommand,
    targets: &[(ApplicationName, InstanceId)],
    failures: &mut Failures<'_>,
) -> Vec<Started> {
    let mut started = Vec::new();
    let mut batches: Vec<Vec<(ApplicationName, InstanceId)>> =
        targets.chunks(MOST_INSTANCES).map(<[_]>::to_vec).collect();
    while let Some(batch) = batches.pop() {
        let instances: Vec<InstanceId> =
            batch.iter().map(|(_, instance)| instance.clone()).collect();
        match send(function, command, &instances).await {
            Ok(command_id) => {
                started.extend(batch.into_iter().map(|(application, instance_id)| {
                    let (backup_id, command_id) = (command.backup_id.clone(), command_id.clone());
                    log_start(&application, &instance_id, command, &command_id);
                    Started {
                        application,
                        instance_id,
                        backup_id,
                        command_id,
                    }
                }));
            }
            Err(error) if ssm::refuses_instance(&error) => {
                batches.extend(tell_apart(function, batch, error, failures).await);
            }
            Err(error) => {
                let names: Vec<&str> = batch
                    .iter()
                    .map(|(application, _)| application.as_str())
                    .collect();
                let application = if let [(application, _)] = batch.as_slice() {
                    Some(application)
                } else {
                    None
                };
                info!(
                    applications = names.join(", "),
                    "these applications were not asked for a backup"
                );
                failures.add(application, error);
            }
        }
    }
    started
}

/// Sends the backup document to some instances; the agent that it fetches is published first.
pub(crate) async fn send(
    function: &Function,
    command: &BackupCommand,
    instances: &[InstanceId],
) -> Result<CommandId> {
    let config = &function.config;
    let agent = agent::publish(&function.aws, config).await?;
    let execution = match command.purpose {
        shared::command::Purpose::Final => budget::FINAL_EXECUTION,
        _ => budget::BACKUP_EXECUTION,
    };
    let parameters = command.parameters(&agent, execution);
    let comment = format!(
        "Rekindle {} backup {}",
        command.purpose.as_str(),
        command.backup_id
    );
    let (ssm, document) = (&function.aws.ssm, config.backup_document.as_str());
    ssm::send(
        ssm,
        document,
        instances,
        parameters,
        budget::DELIVERY,
        &comment,
    )
    .await
}

/// SSM does not say which instance it refuses. So it is asked again which agents answer; where that names none,
/// the batch is halved until the refused instance is alone.
async fn tell_apart(
    function: &Function,
    batch: Vec<(ApplicationName, InstanceId)>,
    error: Error,
    failures: &mut Failures<'_>,
) -> Vec<Vec<(ApplicationName, InstanceId)>> {
    let refuse = |failures: &mut Failures<'_>, application: &ApplicationName, reason: String| {
        failures.add(
            Some(application),
            Error::Refused(format!("no backup is started: {reason}")),
        );
    };
    if let [(application, instance)] = batch.as_slice() {
        let chain = error.chain();
        refuse(
            failures,
            application,
            format!("SSM refuses {instance}, check its role and its agent: {chain}"),
        );
        return Vec::new();
    }
    let instances: Vec<InstanceId> = batch.iter().map(|(_, instance)| instance.clone()).collect();
    let Some(pings) = failures.keep(None, ssm::ping(&function.aws.ssm, &instances).await) else {
        return Vec::new();
    };
    let (mut good, bad): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .partition(|(_, instance)| pings.get(instance) == Some(&Ping::Online));
    for (application, instance) in &bad {
        let skip = match pings.get(instance) {
            Some(_) => Skip::AgentConnectionLost(instance.clone()),
            None => Skip::AgentNotRegistered(instance.clone()),
        };
        refuse(failures, application, skip.to_string());
    }
    if good.is_empty() {
        return Vec::new();
    }
    if bad.is_empty() {
        let rest = good.split_off(good.len() / 2);
        return vec![good, rest];
    }
    vec![good]
}

fn log_start(
    application: &ApplicationName,
    instance: &InstanceId,
    command: &BackupCommand,
    command_id: &CommandId,
) {
    info!(
        application = %application,
        backup_id = %command.backup_id,
        instance_id = %instance,
        command_id = %command_id,
        purpose = command.purpose.as_str(),
        decision = "Start",
        "the backup is asked for"
    );
}
