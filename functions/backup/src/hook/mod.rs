//! The answer to the terminate hook, and the record that an instance ends without a final backup.
//!
//! A finished command, the hook's event and a sweep may all answer the hook. Only the first answer records the failure.

pub mod decide;

use shared::Result;
use shared::aws::autoscaling::{self, Completion, TERMINATE_HOOK};
use shared::function::context::Context;
use shared::function::failure;
use shared::kind::Kind;
use tracing::info;

use self::decide::FinalBackup;
use crate::groups::Node;

/// Answers a node's terminate hook. Returns `None`, without an answer, if a final backup may still come.
pub(crate) async fn answer(
    context: &Context,
    node: Node<'_>,
    backup: FinalBackup,
) -> Result<Option<Completion>> {
    let Some(result) = decide::answer(backup, node.group.retains_on_abandon) else {
        return Ok(None);
    };
    let (client, group) = (&context.aws.autoscaling, node.group.name.as_str());
    let completion =
        autoscaling::complete(client, group, TERMINATE_HOOK, node.instance, result).await?;
    let decision = match completion {
        Completion::Done => "answer-hook",
        Completion::AlreadyResolved => "hook-already-answered",
    };
    info!(
        application = %node.application,
        group,
        instance_id = %node.instance,
        decision,
        result = result.as_str(),
        "handled the terminate hook"
    );
    Ok(Some(completion))
}

/// Records that an instance ends without a final backup.
pub(crate) fn record_no_final_backup(context: &Context, node: Node<'_>, reason: &str) {
    let message = "the instance ends without a final backup";
    failure::record(
        context,
        node.subject(),
        Kind::NoFinalBackup,
        message,
        reason,
    );
}
