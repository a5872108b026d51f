//! The state of all protected groups and their commands, as AWS reports it at one time.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use shared::aws::autoscaling::{self, Group};
use shared::aws::ssm::{self, CommandQuery, CommandRecord, Ping};
use shared::budget::{self, seconds};
use shared::command::BackupCommand;
use shared::error::Result;
use shared::function::context::Context;
use shared::id::{ApplicationName, BackupId, CommandId, InstanceId};
use time::OffsetDateTime;

use super::decide::StartFacts;

/// The state of all protected groups.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The groups.
    pub(crate) groups: Vec<Group>,
    /// The backup commands of the commit window, in any state.
    pub(crate) backups: Vec<CommandRecord>,
    /// The instances on which a Rekindle command is executing.
    executing: HashMap<InstanceId, CommandId>,
    /// The pings of the instances in service.
    pings: HashMap<InstanceId, Ping>,
}

impl Snapshot {
    /// Reads the state from AWS.
    pub(crate) async fn read(context: &Context, now: OffsetDateTime) -> Result<Self> {
        let (ssm, config) = (&context.aws.ssm, &context.config);
        let groups = autoscaling::protected_groups(&context.aws.autoscaling).await?;
        let since = now - seconds(budget::COMMIT_WINDOW);
        let query = CommandQuery::new(&config.backup_document, since);
        let backups = ssm::commands(ssm, query).await?;
        let longest = seconds(budget::DELIVERY + budget::RESTORE_EXECUTION + budget::MARGIN);
        let query = CommandQuery::new(&config.restore_document, now - longest).executing();
        let restores = ssm::commands(ssm, query).await?;
        let mut executing = HashMap::new();
        for record in backups
            .iter()
            .chain(&restores)
            .filter(|record| !record.status.is_finished())
        {
            executing.extend(unfinished(context, record).await?);
        }
        let in_service: Vec<InstanceId> = groups.iter().flat_map(in_service).collect();
        let pings = ssm::ping(ssm, &in_service).await?;
        Ok(Self {
            groups,
            backups,
            executing,
            pings,
        })
    }

    /// Returns the facts for the start of a backup in one group. `backup` is the backup's id in a tick: another
    /// delivery of the tick has requested the same one. It is `None` for an operator's request.
    pub(crate) fn start_facts(&self, group: &Group, backup: Option<&BackupId>) -> StartFacts {
        let application = match group.application() {
            Ok(Some(application)) => Ok(application),
            Ok(None) => Err(format!("the group {:?} has no application tag", group.name)),
            Err(error) => Err(error.chain()),
        };
        let rivals = if application.is_ok() {
            self.rivals(group)
        } else {
            Vec::new()
        };
        let in_service = in_service(group);
        let only = if let [only] = in_service.as_slice() {
            Some(only)
        } else {
            None
        };
        let requested = only
            .zip(backup)
            .and_then(|(instance, backup)| self.request_for(instance, backup));
        StartFacts {
            application,
            rivals,
            ping: only.and_then(|instance| self.pings.get(instance).copied()),
            executing: only.and_then(|instance| self.executing.get(instance).cloned()),
            requested,
            in_service,
        }
    }

    /// Returns the names of all groups with the same application tag, or an empty list if there is only one. A group
    /// without members does not count: an operator may have emptied it and use another one.
    fn rivals(&self, group: &Group) -> Vec<String> {
        let twins = self.groups.iter().filter(|other| {
            other.application_tag == group.application_tag && !other.members.is_empty()
        });
        let rivals: Vec<String> = twins.map(|other| other.name.clone()).collect();
        if rivals.len() < 2 {
            return Vec::new();
        }
        rivals
    }

    /// Returns the command that requested this backup from this instance, or `None` if there is none.
    fn request_for(&self, instance: &InstanceId, backup: &BackupId) -> Option<CommandId> {
        let request = self.backups.iter().find(|record| {
            record.instance_ids.contains(instance)
                && BackupCommand::from_parameters(&record.parameters)
                    .is_ok_and(|command| command.backup_id == *backup)
        })?;
        Some(request.command_id.clone())
    }

    /// Returns the applications of all groups, each once.
    pub(crate) fn applications(&self) -> HashSet<ApplicationName> {
        self.groups
            .iter()
            .filter_map(Group::valid_application)
            .collect()
    }
}

fn in_service(group: &Group) -> Vec<InstanceId> {
    let serving = group.in_service();
    serving.map(|member| member.instance_id.clone()).collect()
}

/// Returns the instances on which a command has not ended. Every instance counts that SSM does not list as ended,
/// because SSM lists none for a few seconds after the command was sent.
async fn unfinished(
    context: &Context,
    record: &CommandRecord,
) -> Result<Vec<(InstanceId, CommandId)>> {
    let listed = ssm::invocations(&context.aws.ssm, &record.command_id).await?;
    let ended: HashSet<InstanceId> = listed
        .into_iter()
        .filter_map(|(instance, status)| status.is_finished().then_some(instance))
        .collect();
    let running = record
        .instance_ids
        .iter()
        .filter(|instance| !ended.contains(*instance));
    let running = running.map(|instance| (instance.clone(), record.command_id.clone()));
    Ok(running.collect())
}
