//! An instance in its terminate hook: its final backup is asked for, and the hook never waits in vain.

#[cfg(test)]
mod tests;

use std::time::Duration;

use shared::aws::autoscaling::{self, Completion, Group, LifecycleState, TERMINATE_HOOK};
use shared::aws::ssm::{self, CommandRecord, InvocationStatus};
use shared::command::{BackupCommand, Purpose};
use shared::event::{LifecycleAction, Location};
use shared::id::{ApplicationName, BackupId, CommandId, InstanceId};
use shared::{Error, Result, budget};
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{field, info, warn};

use crate::decide::{
    self, Ending, FinalBackup, FinalCommand, FinishedFacts, Leaving, Terminating, TerminatingFacts,
    seconds,
};
use crate::function::Function;
use crate::outcome::CaughtUp;
use crate::settle::{self, Target};
use crate::start;

/// Between two looks at a group, or at a command that is being delivered.
const POLL: Duration = Duration::from_secs(1);
/// Auto Scaling's event may be a few seconds ahead of what Auto Scaling answers.
const STATE_TRIES: u32 = 5;
/// What is left of the invocation when waiting ends, so that it ends by itself and not in the midst of a call.
const RESERVE: Duration = Duration::from_secs(10);
/// How many final backups of one instance are looked at: more were refused by a busy node.
const MOST_FINALS: usize = 20;

/// Handles a terminate hook's event. `remaining` is what is left of this invocation; none where it is not known.
pub(crate) async fn on_event(
    function: &Function,
    action: &LifecycleAction,
    remaining: Option<Duration>,
) -> Result<CaughtUp> {
    if action.lifecycle_hook_name != TERMINATE_HOOK {
        return Err(Error::Event(format!(
            "`LifecycleHookName` is {:?}: the rule must let {TERMINATE_HOOK:?} through alone",
            action.lifecycle_hook_name
        )));
    }
    let instance = &action.instance_id;
    let (group, application) =
        settle::named_group(function, &action.auto_scaling_group_name).await?;
    if action.replaces_root_volume() || action.destination == Some(Location::WarmPool) {
        warn!(application = %application, instance_id = %instance,
            "warm pools and root volume replacements are not supported; the final backup is taken nevertheless");
    }
    let wait = remaining.map_or(Duration::MAX, |remaining| remaining.saturating_sub(RESERVE));
    let done = advance(function, &group, &application, instance, Some(wait)).await?;
    Ok(done.unwrap_or_else(|| CaughtUp {
        application: Some(application),
        instance_id: instance.clone(),
        backup_id: None,
        decision: "it does not wait in the terminate hook".to_owned(),
    }))
}

/// Brings a waiting instance one step further. With `wait`, stays that long at most to see its state catch up with
/// its event and its final backup delivered; without, the next sweep looks again.
pub(crate) async fn advance(
    function: &Function,
    group: &Group,
    application: &ApplicationName,
    instance: &InstanceId,
    wait: Option<Duration>,
) -> Result<Option<CaughtUp>> {
    let state_tries = wait.map_or(1, |_| STATE_TRIES);
    let (facts, record) = gather(function, group, instance, state_tries).await?;
    let decision = decide::on_terminating(&facts);
    log(application, instance, &facts, &decision);
    let done = |decision: String| CaughtUp {
        application: Some(application.clone()),
        instance_id: instance.clone(),
        backup_id: None,
        decision,
    };
    let decision = match decision {
        Terminating::NotLeaving | Terminating::NothingWaits => return Ok(None),
        Terminating::Send => {
            let Some(command_id) = send(function, instance).await? else {
                return give_up(
                    function,
                    group,
                    application,
                    instance,
                    "SSM refuses the instance",
                )
                .await
                .map(done)
                .map(Some);
            };
            info!(application = %application, instance_id = %instance, command_id = %command_id, decision = "Start",
                "the final backup is asked for");
            let delivery = Delivery {
                command_id,
                requested_at: OffsetDateTime::now_utc(),
                wait,
            };
            deliver(function, group, application, instance, &delivery).await?
        }
        Terminating::Wait {
            command_id,
            requested_at,
        } => {
            let delivery = Delivery {
                command_id,
                requested_at,
                wait,
            };
            deliver(function, group, application, instance, &delivery).await?
        }
        Terminating::Cancel(command_id) => {
            cancel(function, group, application, instance, &command_id).await?
        }
        Terminating::Settle(_) => {
            if let Some(record) = &record {
                let target = Target {
                    group,
                    application,
                    instance,
                    record,
                };
                return settle::settle(function, target).await.map(Some);
            }
            "the final backup ended".to_owned()
        }
        Terminating::GiveUp(reason) => {
            give_up(function, group, application, instance, reason).await?
        }
    };
    Ok(Some(done(decision)))
}

fn log(
    application: &ApplicationName,
    instance: &InstanceId,
    facts: &TerminatingFacts,
    decision: &Terminating,
) {
    let state = facts
        .state
        .as_ref()
        .map_or("in no group", LifecycleState::as_str);
    let command_id = decision.command_id().map(field::display);
    let decision = decision.name();
    info!(application = %application, instance_id = %instance, state, decision, command_id, "decided on the terminate hook");
}

/// Gathers the facts. The state is looked at `state_tries` times at the most, until it shows the instance leaving.
async fn gather(
    function: &Function,
    group: &Group,
    instance: &InstanceId,
    state_tries: u32,
) -> Result<(TerminatingFacts, Option<CommandRecord>)> {
    let state = state(function, group, instance, state_tries).await?;
    let (ssm, now) = (&function.aws.ssm, OffsetDateTime::now_utc());
    if decide::leaving(state.as_ref()) != Leaving::Now {
        let facts = TerminatingFacts {
            state,
            ping: None,
            command: None,
            now,
        };
        return Ok((facts, None));
    }
    let ping = ssm::ping(ssm, std::slice::from_ref(instance))
        .await?
        .remove(instance);
    let since = now - seconds(budget::COMMIT_WINDOW);
    let document = &function.config.backup_document;
    let records = ssm::commands(ssm, document, since, false, Some(instance)).await?;
    let operation = decide::final_operation(instance);
    let finals = records.into_iter().filter(|record| {
        let command = BackupCommand::from_parameters(&record.parameters);
        command.is_ok_and(|command| Some(command.operation_id) == operation)
    });
    let mut finals: Vec<CommandRecord> = finals.collect();
    finals.sort_by_key(|record| std::cmp::Reverse(record.requested_at));
    let mut newest = None;
    for record in finals.into_iter().take(MOST_FINALS) {
        let command = final_command(function, instance, &record, now).await?;
        // The event and a sweep may both have asked: the second was refused, and the first is the one to follow.
        let busy = command.busy;
        if !busy || newest.is_none() {
            newest = Some((command, record));
        }
        if !busy {
            break;
        }
    }
    let (command, record) = newest.unzip();
    let facts = TerminatingFacts {
        state,
        ping,
        command,
        now,
    };
    Ok((facts, record))
}

async fn state(
    function: &Function,
    group: &Group,
    instance: &InstanceId,
    looks: u32,
) -> Result<Option<LifecycleState>> {
    let mut looked = 1;
    loop {
        let membership = autoscaling::membership(&function.aws.autoscaling, instance).await?;
        let state = membership
            .filter(|(name, _)| *name == group.name)
            .map(|(_, state)| state);
        if decide::leaving(state.as_ref()) != Leaving::NotYet || looked >= looks {
            return Ok(state);
        }
        looked += 1;
        tokio::time::sleep(POLL).await;
    }
}

async fn final_command(
    function: &Function,
    instance: &InstanceId,
    record: &CommandRecord,
    now: OffsetDateTime,
) -> Result<FinalCommand> {
    let command_id = record.command_id.clone();
    let status = status(function, &command_id, instance).await?;
    let mut busy = false;
    if status == Some(InvocationStatus::Failed)
        && let Some(invocation) = ssm::invocation(&function.aws.ssm, &command_id, instance).await?
    {
        let command = BackupCommand::from_parameters(&record.parameters)?;
        let facts = FinishedFacts {
            command,
            requested_at: record.requested_at,
            invocation,
            now,
        };
        busy = decide::on_finished(&facts) == Ending::Busy;
    }
    Ok(FinalCommand {
        command_id,
        requested_at: record.requested_at,
        status,
        busy,
    })
}

async fn status(
    function: &Function,
    command: &CommandId,
    instance: &InstanceId,
) -> Result<Option<InvocationStatus>> {
    let listed = ssm::invocations(&function.aws.ssm, command).await?;
    Ok(listed
        .into_iter()
        .find_map(|(of, status)| (of == *instance).then_some(status)))
}

/// Asks for the final backup; none where SSM refuses the instance.
async fn send(function: &Function, instance: &InstanceId) -> Result<Option<CommandId>> {
    let operation_id = decide::final_operation(instance)
        .ok_or_else(|| Error::contract(instance.as_str(), "it makes no operation id"))?;
    let command = BackupCommand {
        operation_id,
        backup_id: BackupId::at(OffsetDateTime::now_utc()),
        purpose: Purpose::Final,
    };
    match start::send(function, &command, std::slice::from_ref(instance)).await {
        Ok(command_id) => Ok(Some(command_id)),
        Err(error) if ssm::refuses_instance(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A final backup that was asked for, on its way to the agent.
struct Delivery {
    command_id: CommandId,
    requested_at: OffsetDateTime,
    /// How long this invocation may stay; none where it does not.
    wait: Option<Duration>,
}

/// Stays until the agent has taken the command: an agent's ping may be minutes old, and a dead node must not
/// hold up its replacement. What follows is the finished command's own event; what this invocation has no time
/// to see is left to the sweep.
async fn deliver(
    function: &Function,
    group: &Group,
    application: &ApplicationName,
    instance: &InstanceId,
    delivery: &Delivery,
) -> Result<String> {
    let command = &delivery.command_id;
    let (began, wait) = (Instant::now(), delivery.wait.unwrap_or_default());
    while began.elapsed() + POLL < wait {
        match status(function, command, instance).await? {
            Some(status) if !status.is_undelivered() => {
                return Ok(format!("the final backup {command} is {status}"));
            }
            _ if decide::is_overdue(delivery.requested_at, OffsetDateTime::now_utc()) => {
                return cancel(function, group, application, instance, command).await;
            }
            _ => tokio::time::sleep(POLL).await,
        }
    }
    Ok(format!("the final backup {command} is on its way"))
}

/// Takes an undelivered command back. The agent may be faster: then the backup goes on.
async fn cancel(
    function: &Function,
    group: &Group,
    application: &ApplicationName,
    instance: &InstanceId,
    command: &CommandId,
) -> Result<String> {
    ssm::cancel(&function.aws.ssm, command).await?;
    match status(function, command, instance).await? {
        Some(status @ (InvocationStatus::InProgress | InvocationStatus::Success)) => {
            Ok(format!("the final backup {command} is {status} after all"))
        }
        _ => {
            give_up(
                function,
                group,
                application,
                instance,
                "its SSM agent did not take the command in time",
            )
            .await
        }
    }
}

async fn give_up(
    function: &Function,
    group: &Group,
    application: &ApplicationName,
    instance: &InstanceId,
    reason: &str,
) -> Result<String> {
    let answered = settle::answer_hook(function, group, instance, FinalBackup::Failed).await?;
    // It is told once, by whoever answered; another hook of the group may hold the instance for longer.
    if answered != Some(Completion::Done) {
        return Ok("the hook waits no longer".to_owned());
    }
    Ok(settle::tell_no_final_backup(
        function,
        application,
        instance,
        reason,
    ))
}
