//! The dispatch of events. An event is only a hint: each handler reads the facts from AWS again.

use shared::aws::autoscaling::LAUNCH_HOOK;
use shared::event::{CommandStatus, Event, LifecycleAction, Request, expect_equal};
use shared::function::context::Context;
use shared::function::lambda::Deadline;
use shared::{Error, Result};

use crate::answer::Answer;
use crate::launch::LaunchStep;
use crate::{in_place, launch, requests, sweep};

/// Handles one event.
pub(crate) async fn handle(context: &Context, event: Event, deadline: Deadline) -> Result<Answer> {
    match event {
        Event::InstanceLaunching(action) => instance_launching(context, &action, deadline).await,
        Event::CommandFinished(command) => command_finished(context, &command).await,
        Event::Sweep | Event::Tick { .. } => sweep::sweep(context).await,
        Event::Request(Request::Resume { application }) => {
            requests::resume(context, application).await
        }
        Event::InstanceTerminating(_) => Err(Error::Event(
            "the terminate hook belongs to the backup function; send this event there".to_owned(),
        )),
        Event::Request(_) => Err(Error::Event(
            "requests about backups belong to the backup function; send this event there"
                .to_owned(),
        )),
    }
}

async fn instance_launching(
    context: &Context,
    action: &LifecycleAction,
    deadline: Deadline,
) -> Result<Answer> {
    let hook = &action.lifecycle_hook_name;
    expect_equal("restore", "LifecycleHookName", hook, LAUNCH_HOOK)?;
    let handled = launch::advance_until(context, action, deadline).await?;
    Ok(Answer::Handled(handled))
}

async fn command_finished(context: &Context, command: &CommandStatus) -> Result<Answer> {
    let document = &context.config.restore_document;
    expect_equal("restore", "document-name", &command.document_name, document)?;
    let (step, handled) = launch::advance_once(context, &command.instance_id).await?;
    // If the instance does not wait in the hook, the command was an in-place restore, or an old launch restore.
    if step == LaunchStep::AlreadyResolved {
        in_place::report_end(context, command).await?;
    }
    Ok(Answer::Handled(handled))
}

#[cfg(test)]
mod tests;
