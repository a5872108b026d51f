//! Systems Manager: it sends commands, delivers them at least once, and times them out.

use crate::model::world::{
    Agent, AgentOutcome, Command, CommandNumber, Lifecycle, NodeNumber, Request, Status, World,
};

/// The answer to `SendCommand`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum Sent {
    /// SSM accepted the command.
    Accepted,
    /// The instance is not registered with SSM.
    Refused,
    /// SSM throttles the call. It bounds the model.
    Throttled,
}

/// Sends a command.
pub(in crate::model) fn send(world: &mut World, number: NodeNumber, request: Request) -> Sent {
    let node = world.node(number);
    if node.agent == Agent::Unregistered || (node.lifecycle == Lifecycle::Gone && !node.alive) {
        return Sent::Refused;
    }
    if world.budget.commands == 0 {
        return Sent::Throttled;
    }
    world.budget.commands -= 1;
    world.commands.push(Command {
        node: number,
        request,
        status: Status::Pending,
        overdue: false,
        late: false,
    });
    Sent::Accepted
}

/// Delivers a command. Returns `false` if it cannot be delivered.
pub(in crate::model) fn deliver(world: &mut World, command: CommandNumber) -> bool {
    let node = world.node(world.command(command).node);
    // An instance stays in its group until its last command is delivered or timed out.
    let delivered =
        world.command(command).status == Status::Pending && node.alive && node.is_member();
    if delivered {
        world.command_mut(command).status = Status::Running;
    }
    delivered
}

/// Times a command out. If the agent is alive, it is only slow, which costs a delay.
pub(in crate::model) fn time_out(world: &mut World, command: CommandNumber) -> bool {
    let node = world.node(world.command(command).node);
    let is_delay = match world.command(command).status {
        Status::Pending => node.alive && node.is_member(),
        Status::Running => has_process(world, command),
        _ => return false,
    };
    if !spend_delay(world, is_delay) {
        return false;
    }
    let command = world.command_mut(command);
    command.status = match command.status {
        Status::Pending => Status::Undelivered,
        _ => Status::TimedOut,
    };
    true
}

/// Lets the time pass in which an agent has to take a command.
pub(in crate::model) fn become_overdue(world: &mut World, command: CommandNumber) -> bool {
    let pending = world.command(command).status == Status::Pending;
    let alive = world.node(world.command(command).node).alive;
    if !pending || world.command(command).overdue || !spend_delay(world, alive) {
        return false;
    }
    world.command_mut(command).overdue = true;
    true
}

/// Lets the commit window of an uncommitted backup pass.
pub(in crate::model) fn become_late(world: &mut World, number: CommandNumber) -> bool {
    let command = world.command(number);
    let Status::Ended(AgentOutcome::BackedUp(run)) = command.status else {
        return false;
    };
    let committed = world.manifests.contains_key(&world.run(run).backup);
    if committed || command.late || !spend_delay(world, true) {
        return false;
    }
    world.command_mut(number).late = true;
    true
}

/// Lets an agent register, or answer pings again.
pub(in crate::model) fn come_online(world: &mut World, node: NodeNumber) -> bool {
    let node = world.node_mut(node);
    let comes_online = node.alive && node.agent != Agent::Online && node.is_member();
    if comes_online {
        node.agent = Agent::Online;
    }
    comes_online
}

/// Lets an agent's ping fail.
pub(in crate::model) fn go_silent(world: &mut World, number: NodeNumber) -> bool {
    let node = world.node(number);
    let (online, alive) = (node.agent == Agent::Online && node.is_member(), node.alive);
    if !online || !spend_delay(world, alive) {
        return false;
    }
    world.node_mut(number).agent = Agent::Lost;
    true
}

/// Returns whether a process of the agent executes a command.
pub(in crate::model) fn has_process(world: &World, command: CommandNumber) -> bool {
    let node = world.node(world.command(command).node);
    node.processes
        .iter()
        .any(|process| process.command == command)
}

/// Spends a delay of the budget if `is_delay`. Returns `false` if none is left.
pub(in crate::model) fn spend_delay(world: &mut World, is_delay: bool) -> bool {
    if !is_delay {
        return true;
    }
    match world.budget.delays.checked_sub(1) {
        Some(rest) => {
            world.budget.delays = rest;
            true
        }
        None => false,
    }
}
