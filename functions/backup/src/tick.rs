//! A tick of the schedule, and what a tick and an operator's request alike need to know of the groups.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use futures_util::stream::{self, StreamExt as _};
use shared::aws::autoscaling::{self, Group, LifecycleState};
use shared::aws::catalog;
use shared::aws::ssm::{self, CommandRecord, Ping};
use shared::aws::state;
use shared::command::{BackupCommand, Purpose};
use shared::error::Result;
use shared::id::{ApplicationName, BackupId, CommandId, InstanceId};
use shared::layout::BackupState;
use shared::metrics::{self, Metric};
use shared::{Error, budget};
use time::OffsetDateTime;
use tracing::{info, warn};

use crate::catch_up;
use crate::commits::Commits;
use crate::decide::{self, GroupFacts, Skip, Start, seconds};
use crate::failures::{Failures, report};
use crate::function::Function;
use crate::outcome::{Outcome, Skipped};
use crate::start;

/// How many applications are looked after side by side.
const APPLICATIONS_AT_ONCE: usize = 16;

/// Handles a tick: starts what is due, then looks after what earlier events left behind.
pub(crate) async fn on_tick(
    function: &Function,
    scheduled: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<Outcome> {
    let mut failures = Failures::new(&function.config);
    let facts = Facts::gather(function, now).await?;
    let (mut started, mut skipped) = (Vec::new(), Vec::new());

    if let Some(reason) = decide::late(scheduled, now) {
        warn!(reason, decision = "Late", "no backup is started");
        skipped.extend(facts.groups.iter().map(|group| skip(group, reason.clone())));
    } else {
        let backup_id = BackupId::at(scheduled);
        let mut targets = Vec::new();
        for group in &facts.groups {
            match decide::on_tick(&facts.of_group(group, Some(&backup_id))) {
                Start::Start {
                    application,
                    instance,
                } => targets.push((application, instance)),
                Start::Skip(reason) => {
                    log_skip(function, group, &reason);
                    skipped.push(skip(group, reason.to_string()));
                }
            }
        }
        let command = command(backup_id, Purpose::Scheduled)?;
        started = start::start(function, &command, &targets, &mut failures).await;
    }

    let since = now - seconds(budget::COMMIT_WINDOW);
    let mut commits = Commits::unlisted(now);
    let caught_up = catch_up::catch_up(
        function,
        &facts.groups,
        &facts.backups,
        since,
        &mut commits,
        &mut failures,
    )
    .await;
    look_after_all(
        function,
        &facts.applications(),
        &mut commits,
        now,
        &mut failures,
    )
    .await;
    let failures = failures.finish()?;
    Ok(Outcome::Tick {
        started,
        skipped,
        caught_up,
        failures,
    })
}

/// Builds the command for a backup whose operation is named after it.
pub(crate) fn command(backup_id: BackupId, purpose: Purpose) -> Result<BackupCommand> {
    let operation_id = backup_id.as_str().parse();
    let operation_id =
        operation_id.map_err(|error| Error::contract("a backup's id", format!("{error}")))?;
    Ok(BackupCommand {
        operation_id,
        backup_id,
        purpose,
    })
}

/// What AWS says of all protected groups.
#[derive(Debug)]
pub(crate) struct Facts {
    /// The groups.
    pub(crate) groups: Vec<Group>,
    /// The backup commands of the commit window, in any state.
    pub(crate) backups: Vec<CommandRecord>,
    /// Where a Rekindle command is executing.
    executing: HashMap<InstanceId, CommandId>,
    /// What the agents of the instances in service say.
    pings: HashMap<InstanceId, Ping>,
}

impl Facts {
    /// Asks AWS.
    pub(crate) async fn gather(function: &Function, now: OffsetDateTime) -> Result<Self> {
        let (ssm, config) = (&function.aws.ssm, &function.config);
        let groups = autoscaling::protected_groups(&function.aws.autoscaling).await?;
        let window = seconds(budget::COMMIT_WINDOW);
        let backups =
            ssm::commands(ssm, &config.backup_document, now - window, false, None).await?;
        let longest = seconds(budget::DELIVERY + budget::RESTORE_EXECUTION + budget::MARGIN);
        let restores =
            ssm::commands(ssm, &config.restore_document, now - longest, true, None).await?;
        let mut executing = HashMap::new();
        for record in backups
            .iter()
            .chain(&restores)
            .filter(|record| !record.status.is_finished())
        {
            executing.extend(unfinished(function, record).await?);
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

    /// Returns what the start of a backup depends on in one group.
    pub(crate) fn of_group(&self, group: &Group, backup: Option<&BackupId>) -> GroupFacts {
        let application = match group.application() {
            Ok(Some(application)) => Ok(application),
            Ok(None) => Err(format!("the group {:?} has no application tag", group.name)),
            Err(error) => Err(error.chain()),
        };
        let twins = self
            .groups
            .iter()
            .filter(|other| application.is_ok() && other.application_tag == group.application_tag)
            // A group that was emptied in favour of another one claims nothing.
            .filter(|other| !other.members.is_empty());
        let mut rivals: Vec<String> = twins.map(|other| other.name.clone()).collect();
        if rivals.len() < 2 {
            rivals.clear();
        }
        let in_service = in_service(group);
        let only = if let [only] = in_service.as_slice() {
            Some(only)
        } else {
            None
        };
        let requested = self.backups.iter().find(|record| {
            let asked = BackupCommand::from_parameters(&record.parameters).ok();
            only.is_some_and(|instance| record.instance_ids.contains(instance))
                && backup
                    .is_some_and(|backup| asked.is_some_and(|asked| &asked.backup_id == backup))
        });
        GroupFacts {
            application,
            rivals,
            ping: only.and_then(|instance| self.pings.get(instance).copied()),
            executing: only.and_then(|instance| self.executing.get(instance).cloned()),
            requested: requested.map(|record| record.command_id.clone()),
            in_service,
        }
    }

    /// Returns the applications that are written to, each once.
    fn applications(&self) -> HashSet<ApplicationName> {
        self.groups
            .iter()
            .filter_map(|group| group.application().ok().flatten())
            .collect()
    }
}

fn in_service(group: &Group) -> Vec<InstanceId> {
    let serving = group
        .members
        .iter()
        .filter(|member| member.state == LifecycleState::InService);
    serving.map(|member| member.instance_id.clone()).collect()
}

/// Returns the instances on which a command has not ended. SSM lists none for a few seconds after it was sent.
async fn unfinished(
    function: &Function,
    record: &CommandRecord,
) -> Result<Vec<(InstanceId, CommandId)>> {
    let listed = ssm::invocations(&function.aws.ssm, &record.command_id).await?;
    let ended: HashSet<InstanceId> = listed
        .into_iter()
        .filter_map(|(instance, status)| status.is_finished().then_some(instance))
        .collect();
    let running = record
        .instance_ids
        .iter()
        .filter(|instance| !ended.contains(instance));
    Ok(running
        .map(|instance| (instance.clone(), record.command_id.clone()))
        .collect())
}

/// Measures every application.
async fn look_after_all(
    function: &Function,
    applications: &HashSet<ApplicationName>,
    commits: &mut Commits,
    now: OffsetDateTime,
    failures: &mut Failures<'_>,
) {
    let silent = |commits: &Commits| {
        let silent = applications
            .iter()
            .filter(|application| commits.newest(application).is_none());
        silent.count()
    };
    // As far back as the default schedule's last backups. Where most applications have none, the schedule is a longer one; the few
    // that are in trouble are asked one by one. The event of a tick may be late.
    let recent = now - seconds(budget::SCHEDULE + budget::BACKUP_EXECUTION);
    let longest = now - seconds(budget::COMMIT_WINDOW + budget::BACKUP_EVENT_AGE);
    if silent(commits) > 0 {
        commits.reach(function, recent, failures).await;
    }
    if 2 * silent(commits) > applications.len() {
        commits.reach(function, longest, failures).await;
    }
    let (s3, bucket) = (&function.aws.s3, function.config.bucket.as_str());
    let aside = catalog::applications(s3, bucket, BackupState::Quarantined).await;
    let aside = failures.keep(None, aside).unwrap_or_default();
    // They take calls only where a process is new, or nothing was said of an application.
    let looking = applications.iter().map(|application| {
        let (newest, aside) = (
            commits.newest(application).cloned(),
            aside.contains(application),
        );
        async move {
            let looked = look_after(function, application, newest, aside, now).await;
            (application, looked)
        }
    });
    let mut looking = stream::iter(looking).buffer_unordered(APPLICATIONS_AT_ONCE);
    while let Some((application, looked)) = looking.next().await {
        failures.keep(Some(application), looked);
    }
}

/// Measures the age of an application's newest backup and whether some are kept aside, and repairs the application's state where its
/// write was lost.
async fn look_after(
    function: &Function,
    application: &ApplicationName,
    mut newest: Option<BackupId>,
    aside: bool,
    now: OffsetDateTime,
) -> Result<()> {
    let (aws, config) = (&function.aws, &function.config);
    if newest.is_none() {
        let (s3, bucket) = (&aws.s3, config.bucket.as_str());
        newest = catalog::newest(s3, bucket, application, BackupState::Committed, 1, now)
            .await?
            .pop();
    }
    let age = newest
        .as_ref()
        .map(|newest| (now - newest.time()).as_seconds_f64());
    let age = age.map(|age| (Metric::BackupAge, age));
    let aside = aside.then_some((Metric::BackupsQuarantined, 1.0));
    let values: Vec<(Metric, f64)> = age.into_iter().chain(aside).collect();
    metrics::measured(&config.metric_namespace, now, application, &values);
    if let Some(newest) = newest
        && !function.has_state(application)
    {
        if state::ensure(&aws.ssm, application, &newest).await? {
            info!(application = %application, backup_id = %newest, decision = "RepairState", "the application's state is written again");
        }
        function.remember_state(application);
    }
    Ok(())
}

fn skip(group: &Group, reason: String) -> Skipped {
    Skipped {
        group: group.name.clone(),
        reason,
    }
}

/// A refusal needs somebody to change something; the other reasons may be gone at the next tick, and if they are
/// not, the age of the newest backup raises its own alarm.
fn log_skip(function: &Function, group: &Group, reason: &Skip) {
    let name = group.name.as_str();
    match reason {
        _ if reason.is_refusal() => {
            let application = group.application().ok().flatten();
            let message = format!("the group {name:?} is not backed up: {reason}");
            report(&function.config, application.as_ref(), "Refused", &message);
        }
        Skip::AgentNotRegistered(_) | Skip::AgentConnectionLost(_) => {
            warn!(group = name, decision = "Skip", "{reason}");
        }
        _ => info!(group = name, decision = "Skip", "{reason}"),
    }
}
