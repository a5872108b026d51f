//! An instance in its terminate hook: it gets one final backup. When the backup has ended or is impossible, the hook is
//! answered.
//!
//! `facts` reads AWS, `decide` decides, the methods of `Terminating` act.

pub mod decide;
mod deliver;
mod facts;
mod instance;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use shared::Result;
use shared::aws::autoscaling::TERMINATE_HOOK;
use shared::aws::ssm::CommandRecord;
use shared::event::{LifecycleAction, Location, expect_equal};
use shared::function::answer::Handled;
use shared::function::context::Context;
use shared::function::lambda::Deadline;
use shared::id::CommandId;
use tracing::{field, info, warn};

use self::decide::{TerminatingDecision, TerminatingFacts};
use self::deliver::Delivery;
use self::instance::Terminating;
use crate::finished::{self, SentCommand};
use crate::groups::{self, Node};

/// The part of the invocation that is not used for waiting, so that no call is cut off.
const RESERVE: Duration = Duration::from_secs(10);

/// Handles the event of a terminate hook. Waits until the final backup is delivered, or until this invocation has to
/// end.
pub(crate) async fn on_event(
    context: &Context,
    action: &LifecycleAction,
    deadline: Deadline,
) -> Result<Handled> {
    let hook = &action.lifecycle_hook_name;
    expect_equal("backup", "LifecycleHookName", hook, TERMINATE_HOOK)?;
    let group = groups::named(context, &action.auto_scaling_group_name).await?;
    let node = group.node(&action.instance_id);
    if action.replaces_root_volume() || action.destination == Some(Location::WarmPool) {
        warn!(
            application = %node.application,
            group = node.group.name,
            instance_id = %node.instance,
            "warm pools and root volume replacements are not supported; the final backup is taken nevertheless"
        );
    }
    let remaining = deadline.remaining(SystemTime::now());
    let wait = remaining.map_or(Duration::MAX, |remaining| remaining.saturating_sub(RESERVE));
    let terminating = Terminating {
        context,
        node,
        wait: Some(wait),
    };
    let advanced = terminating.advance().await?;
    Ok(advanced.unwrap_or_else(|| {
        let message = "the instance does not wait in the terminate hook".to_owned();
        terminating.handled_with("nothing-waits", message)
    }))
}

/// Advances an instance in its terminate hook by one step, without waiting. Returns `None` if it does not wait there.
pub(crate) async fn advance_once(context: &Context, node: Node<'_>) -> Result<Option<Handled>> {
    let wait = None;
    Terminating {
        context,
        node,
        wait,
    }
    .advance()
    .await
}

impl Terminating<'_> {
    async fn advance(&self) -> Result<Option<Handled>> {
        let (facts, record) = facts::gather(self).await?;
        let decision = decide::on_terminating(&facts);
        self.log(&facts, &decision);
        let name = decision.name();
        let handled = match decision {
            TerminatingDecision::NotLeaving | TerminatingDecision::NothingWaits => return Ok(None),
            TerminatingDecision::Send => self.send().await,
            TerminatingDecision::Wait {
                command_id,
                requested_at,
            } => {
                let delivery = Delivery {
                    command_id,
                    requested_at,
                    decision: name,
                };
                self.deliver(delivery).await
            }
            TerminatingDecision::Cancel(command_id) => self.cancel(&command_id).await,
            TerminatingDecision::Finish(command_id) => self.finish(&command_id, record).await,
            TerminatingDecision::GiveUp(reason) => self.give_up(reason).await,
        };
        handled.map(Some)
    }

    /// Commits the final backup and answers the hook.
    async fn finish(
        &self,
        command_id: &CommandId,
        record: Option<CommandRecord>,
    ) -> Result<Handled> {
        let Some(record) = &record else {
            let message = format!("the final backup {command_id} has ended");
            return Ok(self.handled_with("finish-final-backup", message));
        };
        let node = self.node;
        finished::finish(self.context, SentCommand { node, record }).await
    }

    fn log(&self, facts: &TerminatingFacts, decision: &TerminatingDecision) {
        info!(
            application = %self.node.application,
            group = self.node.group.name,
            instance_id = %self.node.instance,
            command_id = decision.command_id().map(field::display),
            state = facts.state.as_ref().map(field::display),
            decision = decision.name(),
            "decided about a terminating instance"
        );
    }
}
