//! Restore commands of instances: sends them, and reads those that were sent, each with its verdict.

use futures_util::future::try_join_all;
use shared::aws::ssm::{self, CommandQuery, CommandRecord};
use shared::command::RestoreCommand;
use shared::function::agent;
use shared::function::context::Context;
use shared::id::{CommandId, InstanceId};
use shared::operation::Operation;
use shared::report::RestoreReport;
use shared::verdict::{self, Verdict};
use shared::{Result, budget};
use time::OffsetDateTime;

/// One restore command of an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoreAttempt {
    /// The command.
    pub command_id: CommandId,
    /// When it was sent.
    pub requested_at: OffsetDateTime,
    /// Its verdict.
    pub verdict: Verdict<RestoreReport>,
}

/// Sends the restore document to an instance. Publishes the agent first, because the document downloads it.
pub(crate) async fn send(
    context: &Context,
    instance: &InstanceId,
    command: &RestoreCommand,
    comment: &str,
) -> Result<CommandId> {
    let agent = agent::publish(&context.aws, &context.config).await?;
    ssm::send(
        &context.aws.ssm,
        &context.config.restore_document,
        std::slice::from_ref(instance),
        command.parameters(&agent, budget::RESTORE_EXECUTION),
        budget::DELIVERY,
        comment,
    )
    .await
}

/// Returns the restore commands that were sent to an instance since a time.
pub(crate) async fn sent_since(
    context: &Context,
    instance: &InstanceId,
    since: OffsetDateTime,
) -> Result<Vec<CommandRecord>> {
    let query = CommandQuery::new(&context.config.restore_document, since).on(instance);
    ssm::commands(&context.aws.ssm, query).await
}

/// Returns these commands of an instance, each with its verdict.
pub(crate) async fn judge(
    context: &Context,
    instance: &InstanceId,
    operation: &Operation,
    commands: impl IntoIterator<Item = CommandRecord>,
) -> Result<Vec<RestoreAttempt>> {
    let attempts = commands.into_iter().map(async |command| {
        let step = ssm::invocation(&context.aws.ssm, &command.command_id, instance).await?;
        Ok(RestoreAttempt {
            verdict: verdict::of_restore(&command.status, step.as_ref(), operation),
            command_id: command.command_id,
            requested_at: command.requested_at,
        })
    });
    try_join_all(attempts).await
}
