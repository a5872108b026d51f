//! The restore commands that were sent to an instance, each with its verdict.

use futures_util::future::try_join_all;
use shared::Result;
use shared::aws::ssm::{self, CommandRecord};
use shared::function::context::Context;
use shared::id::{CommandId, InstanceId};
use shared::operation::Operation;
use shared::report::RestoreReport;
use shared::verdict::{self, Verdict};
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
