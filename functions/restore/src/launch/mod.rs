//! An instance in the launch hook: from its first event to CONTINUE or ABANDON.
//!
//! One pass: `facts` reads AWS, `decide` decides, and `act` makes at most one answer, heartbeat or command.

mod act;
pub mod candidates;
pub mod decide;
mod facts;
pub mod reason;

use std::time::{Duration, SystemTime};

use shared::Result;
use shared::aws::autoscaling::LifecycleState;
use shared::event::LifecycleAction;
use shared::function::answer::Handled;
use shared::function::context::Context;
use shared::function::lambda::Deadline;
use shared::id::{InstanceId, Subject};
use tokio::time::Instant;
use tracing::{field, info};

pub(crate) use self::act::LaunchStep;
use self::act::LaunchingInstance;
use self::decide::{LaunchDecision, LaunchFacts, Predecessor};
use self::facts::KnownLaunch;

/// The pause between two passes over an instance that is not ready. It is short because no node serves meanwhile.
const PAUSE: Duration = Duration::from_secs(1);
/// The pause between two passes after [`SOON`].
const LONG_PAUSE: Duration = Duration::from_secs(5);
/// The time within which a healthy instance registers and most final backups end.
const SOON: Duration = Duration::from_mins(5);
/// The part of the invocation that is not used for waiting, so that no call is cut off.
const RESERVE: Duration = Duration::from_secs(30);

/// Advances a launching instance until its restore is sent, or until this invocation has to end. Then the event of the
/// finished command, or the sweep, continues.
pub(crate) async fn advance_until(
    context: &Context,
    action: &LifecycleAction,
    deadline: Deadline,
) -> Result<Handled> {
    let instance = &action.instance_id;
    let began = Instant::now();
    let mut passes = Passes::default();
    loop {
        let (step, handled) = passes
            .advance(context, instance, action.replaces_root_volume())
            .await?;
        let pause = if began.elapsed() < SOON {
            PAUSE
        } else {
            LONG_PAUSE
        };
        let remaining = deadline.remaining(SystemTime::now()).unwrap_or_default();
        if !step.is_waiting() || remaining < RESERVE + pause {
            return Ok(handled);
        }
        tokio::time::sleep(pause).await;
    }
}

/// Advances an instance by one pass.
pub(crate) async fn advance_once(
    context: &Context,
    instance: &InstanceId,
) -> Result<(LaunchStep, Handled)> {
    Passes::default().advance(context, instance, false).await
}

/// The memory of one invocation between its passes over one instance.
#[derive(Debug, Default)]
struct Passes {
    /// The facts that do not change between passes.
    launch: Option<KnownLaunch>,
    /// The last decision. It is logged only when it changes.
    decision: Option<LaunchDecision>,
}

impl Passes {
    async fn advance(
        &mut self,
        context: &Context,
        instance: &InstanceId,
        root_volume_replaced: bool,
    ) -> Result<(LaunchStep, Handled)> {
        let (facts, launch) =
            facts::gather(context, instance, root_volume_replaced, self.launch.take()).await?;
        self.launch = launch;
        let decision = decide::decide(&facts);
        if self.decision.as_ref() != Some(&decision) {
            log_decision(&facts, &decision);
            self.decision = Some(decision.clone());
        }
        let command_id = decision.command_id().cloned();
        let step = LaunchingInstance::new(context, &facts)
            .act(decision)
            .await
            .map_err(|error| {
                error.recorded(context, subject(&facts), "the launch was not advanced")
            })?;
        let application = facts.application();
        let handled = Handled {
            command_id,
            ..Handled::new(application, instance, step.as_str())
        };
        Ok((step, handled))
    }
}

/// Returns the ids of a launching instance for the log.
fn subject(facts: &LaunchFacts) -> Subject<'_> {
    Subject {
        application: facts.application(),
        group: Some(&facts.group),
        instance_id: Some(&facts.instance_id),
        ..Subject::default()
    }
}

fn log_decision(facts: &LaunchFacts, decision: &LaunchDecision) {
    let predecessor = facts.predecessor.as_ref().map(Predecessor::instance_id);
    info!(
        decision = decision.name(),
        application = facts.application().map(field::display),
        group = facts.group,
        instance_id = %facts.instance_id,
        state = facts.state.as_ref().map_or("in no group", LifecycleState::as_str),
        waited_seconds = facts.waited_seconds(),
        command_id = decision.command_id().map(field::display),
        predecessor = predecessor.map(field::display),
        "decided about a launching instance"
    );
}
