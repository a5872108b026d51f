//! Executes the decisions of Auto Scaling: boots and terminates machines and sends events.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use time::OffsetDateTime;

use super::State;
use crate::lock::lock;
use crate::nodes::machine::Node;
use crate::standin::autoscaling::Effect;
use crate::standin::clock;

/// How often Auto Scaling and SSM are advanced.
const INTERVAL: Duration = Duration::from_millis(20);

/// Advances Auto Scaling and SSM until the task is aborted.
pub(super) async fn run(state: Arc<State>) {
    loop {
        let now = clock::now();
        advance_groups(&state, now);
        state.ssm.advance(now);
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Advances Auto Scaling to `now` and executes its decisions.
pub(super) fn advance_groups(state: &Arc<State>, now: OffsetDateTime) {
    for effect in state.auto_scaling.advance(now) {
        match effect {
            Effect::Emit(event) => state.bus.put(event),
            Effect::Boot { group, instance } => {
                tokio::spawn(boot(Arc::clone(state), group, instance));
            }
            Effect::Discard { instance } => {
                tokio::spawn(discard(Arc::clone(state), instance));
            }
        }
    }
}

async fn boot(state: Arc<State>, group: String, instance: String) {
    if let Err(error) = try_boot(&state, &group, &instance).await {
        tracing::error!(group, instance, "boot: {error:#}");
    }
}

async fn try_boot(state: &Arc<State>, group: &str, instance: &str) -> Result<()> {
    let launch = lock(&state.launches).get(group).cloned();
    // A group that was created through the API has no user data, and its nodes have no restrictions.
    let (user_data, machine_settings) = match launch {
        Some(launch) => (Some(launch.user_data), launch.machine_settings),
        None => (None, state.machine_settings.clone()),
    };
    let auto_scaling = Arc::clone(&state.auto_scaling);
    let id = instance.to_owned();
    let node = Node::boot(
        instance,
        group,
        &machine_settings,
        Arc::new(move || auto_scaling.target_state(&id)),
    )
    .await?;
    lock(&state.nodes).insert(instance.to_owned(), Arc::clone(&node));
    // As on EC2, the SSM agent does not wait for the user data.
    let register = async {
        tokio::time::sleep(state.registration).await;
        let mut held = state.agents_held.subscribe();
        // The sender lives as long as the stand-in.
        held.wait_for(|held| !held).await.ok();
        if node.has_power() {
            node.start_agent();
            let tags = state.auto_scaling.instance_tags(instance);
            state.ssm.register(Arc::clone(&node), tags);
        }
    };
    let prepare = async {
        if let Some(user_data) = user_data {
            user_data(Arc::clone(&node)).await?;
        }
        node.finish_boot()
    };
    let ((), prepared) = tokio::join!(register, prepare);
    // An error is expected if the machine was terminated while it booted.
    if node.has_power() { prepared } else { Ok(()) }
}

async fn discard(state: Arc<State>, instance: String) {
    state.ssm.deregister(&instance);
    let node = lock(&state.nodes).remove(&instance);
    if let Some(node) = node
        && let Err(error) = node.discard().await
    {
        tracing::error!(instance, "terminate: {error:#}");
    }
}
