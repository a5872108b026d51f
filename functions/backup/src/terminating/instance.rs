//! An instance in its terminate hook, and the end of its wait without a final backup.

use std::time::Duration;

use shared::Result;
use shared::aws::autoscaling::Completion;
use shared::function::answer::Handled;
use shared::function::context::Context;

use crate::groups::Node;
use crate::hook;
use crate::hook::decide::FinalBackup;

/// The pause between two calls for the state of an instance, or of a command that is being delivered.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// An instance in its terminate hook.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terminating<'a> {
    pub(super) context: &'a Context,
    pub(super) node: Node<'a>,
    /// How long this invocation may wait for AWS to show the event's state and for the delivery of the command.
    /// `None` in a sweep: the next one continues.
    pub(super) wait: Option<Duration>,
}

impl Terminating<'_> {
    /// Answers the hook without a final backup.
    pub(super) async fn give_up(&self, reason: &str) -> Result<Handled> {
        let answered = hook::answer(self.context, self.node, FinalBackup::Failed).await?;
        // Only the invocation that answers the hook records the failure. After the answer, the instance may still wait:
        // in another terminate hook of its group.
        if answered != Some(Completion::Done) {
            return Ok(self.handled("hook-already-answered"));
        }
        hook::record_no_final_backup(self.context, self.node, reason);
        Ok(self.handled_with("give-up-final-backup", reason.to_owned()))
    }

    pub(super) fn handled(&self, decision: &'static str) -> Handled {
        Handled::new(Some(self.node.application), self.node.instance, decision)
    }

    pub(super) fn handled_with(&self, decision: &'static str, message: String) -> Handled {
        Handled {
            message: Some(message),
            ..self.handled(decision)
        }
    }
}
