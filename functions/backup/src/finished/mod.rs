//! A finished backup command: `decide` decides what its end means, `act` acts on it, `commit` makes the backup exist.
//!
//! The command's event calls this module. Ticks, sweeps and the terminate hook call it too, because the event may be
//! lost or late.

mod act;
mod commit;
pub mod decide;
mod index;
pub mod quarantine;
#[cfg(test)]
mod tests;

use std::time::Duration;

use shared::aws::autoscaling::Completion;
use shared::aws::ssm::{self, Invocation};
use shared::command::{BackupCommand, Purpose};
use shared::event::{CommandStatus, expect_equal};
use shared::function::answer::Handled;
use shared::function::context::Context;
use shared::{Error, Result};
use time::OffsetDateTime;

use self::act::FinishedRun;
pub(crate) use self::act::SentCommand;
use self::decide::FinishedFacts;
use crate::groups;
use crate::hook::decide::FinalBackup;
use crate::{hook, retention};

/// SSM's event may arrive a few seconds before SSM shows the end of the command.
const STATUS_TRIES: u32 = 5;
const STATUS_PAUSE: Duration = Duration::from_secs(1);

/// Handles the event of a finished command.
pub(crate) async fn on_event(context: &Context, event: &CommandStatus) -> Result<Handled> {
    let document = &context.config.backup_document;
    expect_equal("backup", "document-name", &event.document_name, document)?;
    let record = ssm::command(&context.aws.ssm, &event.command_id).await?;
    let record = record.ok_or_else(|| {
        let command = &event.command_id;
        Error::Refused(format!(
            "SSM does not know the command {command}; check the sender of the event"
        ))
    })?;
    let group = groups::of_instance(context, &event.instance_id).await?;
    let node = group.node(&event.instance_id);
    let record = &record;
    finish(context, SentCommand { node, record }).await
}

/// Commits the backup of a command, and answers the terminate hook if it is a final one. Repeating this is harmless.
pub(crate) async fn finish(context: &Context, sent: SentCommand<'_>) -> Result<Handled> {
    let SentCommand { node, record } = sent;
    let key = (record.command_id.clone(), node.instance.clone());
    let handled = Handled {
        command_id: Some(record.command_id.clone()),
        ..Handled::new(Some(node.application), node.instance, "already-handled")
    };
    if context.handled_commands.contains(&key) {
        return Ok(handled);
    }
    let facts = FinishedFacts {
        command: BackupCommand::from_parameters(&record.parameters)?,
        requested_at: record.requested_at,
        invocation: finished_invocation(context, sent).await?,
        now: OffsetDateTime::now_utc(),
    };
    let run = FinishedRun {
        context,
        sent,
        facts: &facts,
    };
    let result = run.act(decide::on_finished(&facts)).await?;

    if let Some(backup) = result.final_backup {
        if facts.command.purpose == Purpose::Final {
            let answered = hook::answer(context, node, backup).await?;
            // Usually the invocation that cancelled the command has answered before.
            if backup == FinalBackup::Cancelled && answered == Some(Completion::Done) {
                hook::record_no_final_backup(context, node, "its command was cancelled");
            }
        }
        context.handled_commands.insert(key);
    }
    // After the answer, since the hook waits for it.
    if let Some(backup) = &result.committed {
        retention::after_commit(context, node.application, backup, facts.now).await;
    }
    Ok(Handled {
        backup_id: result.committed,
        decision: result.decision,
        message: result.message,
        ..handled
    })
}

/// Returns the end of a command on its instance, or its current status after a few tries.
async fn finished_invocation(context: &Context, sent: SentCommand<'_>) -> Result<Invocation> {
    let (command, instance) = (&sent.record.command_id, sent.node.instance);
    let mut tries = 1;
    loop {
        let invocation = ssm::invocation(&context.aws.ssm, command, instance).await?;
        let invocation = invocation.ok_or_else(|| {
            Error::Refused(format!(
                "SSM has no invocation of the command {command} on {instance}"
            ))
        })?;
        if invocation.status.is_finished() || tries == STATUS_TRIES {
            return Ok(invocation);
        }
        tries += 1;
        tokio::time::sleep(STATUS_PAUSE).await;
    }
}
