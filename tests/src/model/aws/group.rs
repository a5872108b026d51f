//! The Auto Scaling group of size one: it launches, terminates, and waits for the answers of its hooks.

use super::ssm;
use crate::model::world::{
    Agent, Call, Command, LaunchWait, Lifecycle, Node, NodeNumber, Promise, Resumption, Status,
    World,
};

/// How many launches may follow each other without a success or a pause of the breaker.
pub(in crate::model) const MAX_LAUNCHES: u8 = 3;

/// Launches an instance, if the group lacks one or launches early.
pub(in crate::model) fn launch(world: &mut World) -> bool {
    let any = |lifecycle| world.nodes.iter().any(|node| node.lifecycle == lifecycle);
    // The breaker's record is written before an instance has booted.
    let resuming = world.calls.contains(&Call::RecordBreaker {
        resumption: Resumption::Trial,
    });
    if any(Lifecycle::Launching) || world.budget.launches == 0 || world.suspended || resuming {
        return false;
    }
    if any(Lifecycle::InService) {
        // The group launches before it terminates, or rebalances its zones.
        if world.budget.early_launches == 0 {
            return false;
        }
        world.budget.early_launches -= 1;
    }
    world.budget.launches -= 1;
    world.launches_in_row += 1;
    if world.launches_in_row > MAX_LAUNCHES {
        world.broken = Some(Promise::LaunchesStop);
    }
    world.nodes.push(Node::launched());
    true
}

/// Terminates a member. Only the termination of a healthy member that is not surplus is counted.
pub(in crate::model) fn terminate(world: &mut World, number: NodeNumber) -> bool {
    let in_service = world
        .nodes
        .iter()
        .filter(|node| node.lifecycle == Lifecycle::InService);
    let surplus = in_service.count() > 1;
    let node = world.node(number);
    let free = match node.lifecycle {
        Lifecycle::InService => !node.alive || !node.healthy || surplus,
        Lifecycle::Launching => false,
        _ => return false,
    };
    if !free {
        if world.budget.terminations == 0 {
            return false;
        }
        world.budget.terminations -= 1;
    }
    world.node_mut(number).lifecycle = Lifecycle::Terminating;
    true
}

/// Marks a living member as unhealthy: its application does not answer the health check.
pub(in crate::model) fn turn_unhealthy(world: &mut World, number: NodeNumber) -> bool {
    let node = world.node(number);
    let can_turn = node.lifecycle == Lifecycle::InService && node.healthy && node.alive;
    if !can_turn || world.budget.unhealthy == 0 {
        return false;
    }
    world.budget.unhealthy -= 1;
    world.node_mut(number).healthy = false;
    true
}

/// Answers a terminate hook with CONTINUE. Returns `false` if it was answered before.
pub(in crate::model) fn complete_termination(world: &mut World, node: NodeNumber) -> bool {
    let node = world.node_mut(node);
    let waits = node.lifecycle == Lifecycle::Terminating;
    if waits {
        node.lifecycle = Lifecycle::Proceeding;
    }
    waits
}

/// Answers a launch hook with ABANDON: the instance goes to its terminate hook. Returns `false` if it was answered before.
pub(in crate::model) fn abandon_launch(world: &mut World, node: NodeNumber) -> bool {
    let node = world.node_mut(node);
    let waits = node.lifecycle == Lifecycle::Launching;
    if waits {
        node.lifecycle = Lifecycle::Terminating;
    }
    waits
}

/// Lets a hook expire. That needs an outage of the functions, which Lambda's own alarms report.
pub(in crate::model) fn expire(world: &mut World, number: NodeNumber) -> bool {
    let lifecycle = world.node(number).lifecycle;
    let waits = matches!(lifecycle, Lifecycle::Launching | Lifecycle::Terminating);
    if !waits || !ssm::spend_delay(world, true) {
        return false;
    }
    let node = world.node_mut(number);
    node.reported = true;
    node.lifecycle = match lifecycle {
        Lifecycle::Launching => Lifecycle::Terminating,
        _ => Lifecycle::Proceeding,
    };
    true
}

/// Removes a member whose terminate hook is answered. Its machine may still be running for a while.
pub(in crate::model) fn remove(world: &mut World, number: NodeNumber) -> bool {
    let node = world.node_mut(number);
    let proceeds = node.lifecycle == Lifecycle::Proceeding;
    if proceeds {
        node.lifecycle = Lifecycle::Gone;
    }
    proceeds
}

/// Lets the time in the launch hook pass a limit that a decision compares it with.
pub(in crate::model) fn wait(world: &mut World, number: NodeNumber, waited: LaunchWait) -> bool {
    let node = world.node(number);
    if node.lifecycle != Lifecycle::Launching || node.waited >= waited {
        return false;
    }
    let others = || world.numbered_nodes().filter(|(other, _)| *other != number);
    let any_other = |wanted| others().any(|(_, it)| it.lifecycle == wanted);
    let terminating = any_other(Lifecycle::Terminating) || any_other(Lifecycle::Proceeding);
    let own = |command: &Command| command.node == number;
    let (matters, is_delay) = match waited {
        LaunchWait::Short => (false, false),
        LaunchWait::PastReady => (node.agent == Agent::Unregistered, node.alive),
        // By then no command is pending, and a final backup has usually ended.
        LaunchWait::PastFence if terminating => {
            let pending = |command: &Command| !own(command) && command.status == Status::Pending;
            (!world.commands.iter().any(pending), true)
        }
        LaunchWait::PastFence => (any_other(Lifecycle::InService), false),
        LaunchWait::PastReadyAndFence => (node.agent == Agent::Lost, false),
        LaunchWait::PastHardCap => (world.commands.iter().any(own), true),
    };
    // No invocation runs as long as the fence.
    let passes = matters && (waited == LaunchWait::PastReady || world.calls.is_empty());
    if !passes || !ssm::spend_delay(world, is_delay) {
        return false;
    }
    world.node_mut(number).waited = waited;
    true
}
