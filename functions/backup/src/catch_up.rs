//! What lost events left behind: backups that are complete but not committed, and hooks without an answer.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use shared::aws::autoscaling::{self, Group, LifecycleState, Member};
use shared::aws::ssm::{self, CommandRecord, InvocationStatus};
use shared::command::{BackupCommand, Purpose};
use shared::id::{ApplicationName, CommandId, InstanceId};
use shared::layout::BackupState;
use shared::{Result, budget};
use time::OffsetDateTime;
use tracing::info;

use crate::commits::{self, Commits};
use crate::decide::seconds;
use crate::failures::Failures;
use crate::function::Function;
use crate::outcome::{CaughtUp, Outcome};
use crate::settle::{self, Target};
use crate::{stored, terminate};

/// Handles the one-minute sweep. It looks back as far as a tick's commands can be of use; ticks look further.
pub(crate) async fn on_sweep(function: &Function, now: OffsetDateTime) -> Result<Outcome> {
    let mut failures = Failures::new(&function.config);
    let groups = autoscaling::protected_groups(&function.aws.autoscaling).await?;
    let since = now - seconds(budget::SCHEDULE + budget::BACKUP_EXECUTION);
    let document = &function.config.backup_document;
    let records = ssm::commands(&function.aws.ssm, document, since, false, None).await?;
    let mut commits = Commits::unlisted(now);
    let mut caught_up = catch_up(
        function,
        &groups,
        &records,
        since,
        &mut commits,
        &mut failures,
    )
    .await;
    for (group, application, member) in &members(&groups) {
        if is_waiting(&member.state) {
            let instance = &member.instance_id;
            let advanced = terminate::advance(function, group, application, instance, None).await;
            caught_up.extend(failures.keep(Some(application), advanced).flatten());
        }
    }
    let failures = failures.finish()?;
    Ok(Outcome::Sweep {
        caught_up,
        failures,
    })
}

/// Sees through every command sent since `since` that ended on a member of a protected group without effect.
pub(crate) async fn catch_up(
    function: &Function,
    groups: &[Group],
    records: &[CommandRecord],
    since: OffsetDateTime,
    commits: &mut Commits,
    failures: &mut Failures<'_>,
) -> Vec<CaughtUp> {
    let members = members(groups);
    let recent: Vec<(&CommandRecord, Option<BackupCommand>)> = records
        .iter()
        .filter(|record| record.requested_at >= since)
        .map(|record| {
            (
                record,
                BackupCommand::from_parameters(&record.parameters).ok(),
            )
        })
        .collect();
    let open: Vec<(Target<'_>, &LifecycleState, Option<&BackupCommand>)> = recent
        .iter()
        .flat_map(|(record, command)| {
            members
                .iter()
                .filter(|(_, _, member)| record.instance_ids.contains(&member.instance_id))
                .map(move |(group, application, member)| {
                    let instance = &member.instance_id;
                    let target = Target {
                        group,
                        application,
                        instance,
                        record,
                    };
                    (target, &member.state, command.as_ref())
                })
        })
        .filter(|(target, ..)| !function.is_settled(&target.record.command_id, target.instance))
        .collect();
    let asked = open.iter().filter_map(|(.., command)| *command);
    if let Some(first) = asked.map(|command| command.backup_id.time()).min() {
        // A backup bears the time of its tick, whose event may be so late; who names an older one gets no long listing for it.
        let earliest = since - seconds(budget::BACKUP_EVENT_AGE);
        commits.reach(function, first.max(earliest), failures).await;
    }
    let (mut caught_up, mut statuses) = (Vec::new(), HashMap::new());
    for (target, state, command) in open {
        let done = look_at(function, target, state, command, commits, &mut statuses).await;
        caught_up.extend(failures.keep(Some(target.application), done).flatten());
    }
    caught_up
}

/// What SSM says of commands on their instances, each command asked for once.
type Statuses = HashMap<CommandId, Vec<(InstanceId, InvocationStatus)>>;

async fn look_at(
    function: &Function,
    target: Target<'_>,
    state: &LifecycleState,
    command: Option<&BackupCommand>,
    commits: &mut Commits,
    statuses: &mut Statuses,
) -> Result<Option<CaughtUp>> {
    let Target {
        application,
        instance,
        record,
        ..
    } = target;
    // Somebody else's use of the document: what it leaves is not committed by its event either.
    let Some(command) = command else {
        function.remember(&record.command_id, instance);
        return Ok(None);
    };
    // Whether it is followed, repeated or given up is for the hook to say, which the sweep looks after.
    if command.purpose == Purpose::Final && is_waiting(state) {
        return Ok(None);
    }
    let backup = &command.backup_id;
    if commits.has(application, backup) {
        function.remember(&record.command_id, instance);
        return Ok(None);
    }
    let listed = match statuses.entry(record.command_id.clone()) {
        Entry::Occupied(listed) => listed.into_mut(),
        Entry::Vacant(place) => {
            place.insert(ssm::invocations(&function.aws.ssm, &record.command_id).await?)
        }
    };
    let status = listed.iter().find(|(of, _)| of == instance);
    let Some((_, status)) = status.filter(|(_, status)| status.is_finished()) else {
        return Ok(None);
    };
    // A failure's own event says it; if that is lost, the age of the newest backup says it.
    if *status != InvocationStatus::Success {
        function.remember(&record.command_id, instance);
        return Ok(None);
    }
    if let Some(state) = stored::state(function, application, backup).await? {
        function.remember(&record.command_id, instance);
        if state == BackupState::Committed {
            // Who committed it did not come to say so.
            commits::say(function, application, backup).await;
            commits.learn(application.clone(), backup.clone());
        }
        return Ok(None);
    }
    info!(application = %application, instance_id = %instance, command_id = %record.command_id, decision = "CatchUp",
        "the command ended without effect, so its event is lost or still on its way");
    let done = settle::settle(function, target).await?;
    Ok(Some(done))
}

/// Tells whether a member is in its terminate hook.
fn is_waiting(state: &LifecycleState) -> bool {
    matches!(
        state,
        LifecycleState::TerminatingWait
            | LifecycleState::ReplacingRootVolumeWait
            | LifecycleState::WarmedTerminatingWait
    )
}

/// Returns every member of every group whose tag names an application.
fn members(groups: &[Group]) -> Vec<(&Group, ApplicationName, &Member)> {
    let protected = groups
        .iter()
        .filter_map(|group| Some((group, group.application().ok().flatten()?)));
    protected
        .flat_map(|(group, application)| {
            group
                .members
                .iter()
                .map(move |member| (group, application.clone(), member))
        })
        .collect()
}
