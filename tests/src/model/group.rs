//! The Auto Scaling group of one: it launches, it terminates, and it waits for its hooks' answers.

use super::calls::{Call, Resumption};
use super::promises::Promise;
use super::world::{Agent, Command, Node, NodeNumber, Standing, Status, Waited, World};
use super::{circuit, ssm};

/// Launches an instance where none serves or is about to.
pub(super) fn launch(world: &mut World) -> bool {
    let standing = |standing| world.nodes.iter().any(|node| node.standing == standing);
    // A record is written before an instance has booted.
    let resuming = world.calls.contains(&Call::RecordBreaker {
        resumption: Resumption::Trial,
    });
    if standing(Standing::Waiting) || world.left.launches == 0 || world.suspended || resuming {
        return false;
    }
    if standing(Standing::Serving) {
        // Where the group launches before it terminates, or its zones are rebalanced.
        if world.left.early_launches == 0 {
            return false;
        }
        world.left.early_launches -= 1;
    }
    world.left.launches -= 1;
    world.launches_in_row += 1;
    if world.launches_in_row > circuit::MOST_LAUNCHES {
        world.broken = Some(Promise::LaunchesEnd);
    }
    world.nodes.push(Node::launched());
    true
}

/// Terminates a member: one that is dead, unhealthy or too many, or one that lives, which is counted.
pub(super) fn terminate(world: &mut World, number: NodeNumber) -> bool {
    let serving = world
        .nodes
        .iter()
        .filter(|node| node.standing == Standing::Serving);
    let too_many = serving.count() > 1;
    let node = world.node(number);
    let free = match node.standing {
        Standing::Serving => !node.alive || !node.healthy || too_many,
        Standing::Waiting => false,
        _ => return false,
    };
    if !free {
        if world.left.terminations == 0 {
            return false;
        }
        world.left.terminations -= 1;
    }
    world.node_mut(number).standing = Standing::Leaving;
    true
}

/// Finds a living member unhealthy: its application answers no health check.
pub(super) fn sicken(world: &mut World, number: NodeNumber) -> bool {
    let node = world.node(number);
    let sickens = node.standing == Standing::Serving && node.healthy && node.alive;
    if !sickens || world.left.sicknesses == 0 {
        return false;
    }
    world.left.sicknesses -= 1;
    world.node_mut(number).healthy = false;
    true
}

/// Answers a terminate hook; `false` where it had its answer before.
pub(super) fn complete_leaving(world: &mut World, node: NodeNumber) -> bool {
    let node = world.node_mut(node);
    let waits = node.standing == Standing::Leaving;
    if waits {
        node.standing = Standing::Left;
    }
    waits
}

/// Abandons a launch: the instance leaves by way of its terminate hook.
pub(super) fn abandon_launch(world: &mut World, node: NodeNumber) -> bool {
    let node = world.node_mut(node);
    let waits = node.standing == Standing::Waiting;
    if waits {
        node.standing = Standing::Leaving;
    }
    waits
}

/// Lets a hook's time run out, which takes an outage of the functions: Lambda's own alarms tell that.
pub(super) fn expire(world: &mut World, number: NodeNumber) -> bool {
    let standing = world.node(number).standing;
    let waits = matches!(standing, Standing::Waiting | Standing::Leaving);
    if !waits || !ssm::spend_delay(world, true) {
        return false;
    }
    let node = world.node_mut(number);
    node.told = true;
    node.standing = match standing {
        Standing::Waiting => Standing::Leaving,
        _ => Standing::Left,
    };
    true
}

/// Takes a member that needs not wait any more out of the group. Its machine may run on for a while.
pub(super) fn remove(world: &mut World, number: NodeNumber) -> bool {
    let node = world.node_mut(number);
    let left = node.standing == Standing::Left;
    if left {
        node.standing = Standing::Gone;
    }
    left
}

/// Lets the time in the launch hook pass the next limit that a decision could look at.
pub(super) fn wait(world: &mut World, number: NodeNumber, waited: Waited) -> bool {
    let node = world.node(number);
    if node.standing != Standing::Waiting || node.waited >= waited {
        return false;
    }
    let others = || world.numbered_nodes().filter(|(other, _)| *other != number);
    let standing = |wanted| others().any(|(_, it)| it.standing == wanted);
    let leaving = standing(Standing::Leaving) || standing(Standing::Left);
    let own = |command: &Command| command.node == number;
    let (counts, slow) = match waited {
        Waited::NotLong => (false, false),
        Waited::PastReady => (node.agent == Agent::Unregistered, node.alive),
        // By then no command waits for its delivery any more, and a final backup is mostly over.
        Waited::PastFence if leaving => {
            let pending = |command: &Command| !own(command) && command.status == Status::Pending;
            (!world.commands.iter().any(pending), true)
        }
        Waited::PastFence => (standing(Standing::Serving), false),
        Waited::PastBoth => (node.agent == Agent::Lost, false),
        Waited::PastCap => (world.commands.iter().any(own), true),
    };
    // No invocation lasts as long as the fence.
    let passes = counts && (waited == Waited::PastReady || world.calls.is_empty());
    if !passes || !ssm::spend_delay(world, slow) {
        return false;
    }
    world.node_mut(number).waited = waited;
    true
}
