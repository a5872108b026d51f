//! Reads the facts about an instance in its terminate hook.

use std::cmp::Reverse;

use shared::Result;
use shared::aws::autoscaling::{self, LifecycleState};
use shared::aws::ssm::{self, CommandQuery, CommandRecord, InvocationStatus};
use shared::budget::{self, seconds};
use shared::command::BackupCommand;
use shared::function::context::Context;
use shared::id::CommandId;
use shared::operation::Operation;
use shared::verdict::{self, Verdict};
use time::OffsetDateTime;

use super::decide::{self, FinalCommand, Leaving, TerminatingFacts};
use super::instance::{PAUSE, Terminating};
use crate::groups::Node;

/// Auto Scaling's event may arrive a few seconds before Auto Scaling shows the state.
const STATE_TRIES: u32 = 5;
/// How many final backups of one instance are read at most. All but one of them ended because the node was busy.
const MOST_FINALS: usize = 20;

/// Returns the facts, and the record of the final backup among them.
pub(super) async fn gather(
    terminating: &Terminating<'_>,
) -> Result<(TerminatingFacts, Option<CommandRecord>)> {
    let Terminating { context, node, .. } = *terminating;
    let state = state(terminating).await?;
    let now = OffsetDateTime::now_utc();
    if decide::leaving(state.as_ref()) != Leaving::Now {
        let facts = TerminatingFacts {
            state,
            ping: None,
            command: None,
            now,
        };
        return Ok((facts, None));
    }
    let pings = ssm::ping(&context.aws.ssm, std::slice::from_ref(node.instance)).await?;
    let (command, record) = newest_final_backup(context, node, now).await?.unzip();
    let facts = TerminatingFacts {
        state,
        ping: pings.get(node.instance).copied(),
        command,
        now,
    };
    Ok((facts, record))
}

/// Returns the instance's state in its group, or `None` if it has left. The event may arrive before Auto Scaling shows
/// the new state, so an event's invocation tries again until the instance is leaving.
async fn state(terminating: &Terminating<'_>) -> Result<Option<LifecycleState>> {
    let Terminating {
        context,
        node,
        wait,
    } = *terminating;
    let most_tries = wait.map_or(1, |_| STATE_TRIES);
    let mut tries = 1;
    loop {
        let membership = autoscaling::membership(&context.aws.autoscaling, node.instance).await?;
        let state = membership
            .filter(|(name, _)| *name == node.group.name)
            .map(|(_, state)| state);
        if decide::leaving(state.as_ref()) != Leaving::NotYet || tries >= most_tries {
            return Ok(state);
        }
        tries += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Returns the newest final backup that did not end because the node was busy, or else the newest one, or `None` if
/// there is none.
///
/// The event and a sweep may both have requested one. Then the second one was refused as busy, and the first one
/// counts.
async fn newest_final_backup(
    context: &Context,
    node: Node<'_>,
    now: OffsetDateTime,
) -> Result<Option<(FinalCommand, CommandRecord)>> {
    let since = now - seconds(budget::COMMIT_WINDOW);
    let query = CommandQuery::new(&context.config.backup_document, since).on(node.instance);
    let mut finals = ssm::commands(&context.aws.ssm, query).await?;
    let own = Operation::FinalBackup(node.instance.clone());
    finals.retain(|record| {
        BackupCommand::from_parameters(&record.parameters)
            .is_ok_and(|command| command.operation_id == own)
    });
    finals.sort_by_key(|record| Reverse(record.requested_at));
    let mut newest = None;
    for record in finals.into_iter().take(MOST_FINALS) {
        let command = final_command(context, node, &record, &own).await?;
        if !command.busy {
            return Ok(Some((command, record)));
        }
        newest.get_or_insert((command, record));
    }
    Ok(newest)
}

async fn final_command(
    context: &Context,
    node: Node<'_>,
    record: &CommandRecord,
    operation: &Operation,
) -> Result<FinalCommand> {
    let command_id = &record.command_id;
    let status = status(context, node, command_id).await?;
    let mut busy = false;
    if status == Some(InvocationStatus::Failed)
        && let Some(step) = ssm::invocation(&context.aws.ssm, command_id, node.instance).await?
    {
        let verdict = verdict::of_backup(&step.status, Some(&step), operation);
        busy = matches!(verdict, Verdict::Failed(failure) if failure.is_busy());
    }
    Ok(FinalCommand {
        command_id: command_id.clone(),
        requested_at: record.requested_at,
        status,
        busy,
    })
}

/// Returns the status of a command on a node, or `None` in the first seconds, when SSM does not list it yet.
pub(super) async fn status(
    context: &Context,
    node: Node<'_>,
    command: &CommandId,
) -> Result<Option<InvocationStatus>> {
    let listed = ssm::invocations(&context.aws.ssm, command).await?;
    Ok(listed
        .into_iter()
        .find_map(|(of, status)| (of == *node.instance).then_some(status)))
}
