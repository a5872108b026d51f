//! What lost events left behind: backups that are complete but not committed, and hooks without an answer.

use std::collections::{BTreeSet, HashMap};

use shared::aws::autoscaling::{self, Group, LifecycleState, Member};
use shared::aws::ssm::{self, CommandRecord, InvocationStatus};
use shared::command::{BackupCommand, Purpose};
use shared::id::{BackupId, InstanceId, StackName};
use shared::{Result, budget};
use time::OffsetDateTime;
use tracing::info;

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
    let mut caught_up = catch_up(
        function,
        &groups,
        &records,
        since,
        &Committed::new(),
        &mut failures,
    )
    .await;
    for (group, stack, member) in members(&groups) {
        if is_waiting(&member.state) {
            let instance = &member.instance_id;
            let advanced = terminate::advance(function, group, &stack, instance, None).await;
            caught_up.extend(failures.keep(Some(&stack), advanced).flatten());
        }
    }
    let failures = failures.finish()?;
    Ok(Outcome::Sweep {
        caught_up,
        failures,
    })
}

/// Backups that are known to be committed, by their stacks.
pub(crate) type Committed = HashMap<StackName, BTreeSet<BackupId>>;

/// Sees through every command sent since `since` that ended on a member of a protected group without effect. Of a backup
/// that is not among the `committed` ones, S3 is asked.
pub(crate) async fn catch_up(
    function: &Function,
    groups: &[Group],
    records: &[CommandRecord],
    since: OffsetDateTime,
    committed: &Committed,
    failures: &mut Failures<'_>,
) -> Vec<CaughtUp> {
    let mut caught_up = Vec::new();
    for record in records.iter().filter(|record| record.requested_at >= since) {
        // Asked for once per command, and only if one of its instances is still open.
        let mut statuses = None;
        for (group, stack, member) in members(groups) {
            let instance = &member.instance_id;
            if !record.instance_ids.contains(instance)
                || function.is_settled(&record.command_id, instance)
            {
                continue;
            }
            let target = Target {
                group,
                stack: &stack,
                instance,
                record,
            };
            let known = committed.get(&stack);
            let done = look_at(function, target, &member.state, known, &mut statuses).await;
            caught_up.extend(failures.keep(Some(&stack), done).flatten());
        }
    }
    caught_up
}

type Statuses = Vec<(InstanceId, InvocationStatus)>;

async fn look_at(
    function: &Function,
    target: Target<'_>,
    state: &LifecycleState,
    committed: Option<&BTreeSet<BackupId>>,
    statuses: &mut Option<Statuses>,
) -> Result<Option<CaughtUp>> {
    let Target {
        stack,
        instance,
        record,
        ..
    } = target;
    let command = BackupCommand::from_parameters(&record.parameters);
    // Somebody else's use of the document: what it leaves is not committed by its event either.
    let Ok(command) = command else {
        function.remember(&record.command_id, instance);
        return Ok(None);
    };
    // Whether it is followed, repeated or given up is for the hook to say, which the sweep looks after.
    if command.purpose == Purpose::Final && is_waiting(state) {
        return Ok(None);
    }
    let backup = &command.backup_id;
    if committed.is_some_and(|committed| committed.contains(backup))
        || stored::is_settled(function, stack, backup).await?
    {
        function.remember(&record.command_id, instance);
        return Ok(None);
    }
    if statuses.is_none() {
        *statuses = Some(ssm::invocations(&function.aws.ssm, &record.command_id).await?);
    }
    let listed = statuses.iter().flatten().find(|(of, _)| of == instance);
    let Some((_, status)) = listed.filter(|(_, status)| status.is_finished()) else {
        return Ok(None);
    };
    // A failure's own event says it; if that is lost, the age of the newest backup says it.
    if *status != InvocationStatus::Success {
        function.remember(&record.command_id, instance);
        return Ok(None);
    }
    info!(stack = %stack, instance_id = %instance, command_id = %record.command_id, decision = "CatchUp",
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

/// Returns every member of every group whose tag names a stack.
fn members(groups: &[Group]) -> Vec<(&Group, StackName, &Member)> {
    let protected = groups
        .iter()
        .filter_map(|group| Some((group, group.stack().ok().flatten()?)));
    protected
        .flat_map(|(group, stack)| {
            group
                .members
                .iter()
                .map(move |member| (group, stack.clone(), member))
        })
        .collect()
}
