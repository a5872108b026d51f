//! Systems Manager: it sends, delivers at least once, and gives up.

use super::world::{
    Agent, Ask, Command, CommandNumber, NodeNumber, Outcome, Standing, Status, World,
};

/// What came of a `SendCommand`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// SSM took it.
    Yes,
    /// SSM does not know the instance.
    Refused,
    /// SSM takes no more now; this is where the model's size ends.
    Throttled,
}

/// Sends a command.
pub(super) fn send(world: &mut World, number: NodeNumber, ask: Ask) -> Sent {
    let node = world.node(number);
    if node.agent == Agent::Unregistered || (node.standing == Standing::Gone && !node.alive) {
        return Sent::Refused;
    }
    if world.left.commands == 0 {
        return Sent::Throttled;
    }
    world.left.commands -= 1;
    world.commands.push(Command {
        node: number,
        ask,
        status: Status::Pending,
        overdue: false,
        late: false,
    });
    Sent::Yes
}

/// Delivers a command; `false` where it cannot be.
pub(super) fn deliver(world: &mut World, command: CommandNumber) -> bool {
    let node = world.node(world.command(command).node);
    // Nobody is out of its group before its last command is delivered or given up.
    let taken = world.command(command).status == Status::Pending && node.alive && node.is_member();
    if taken {
        world.command_mut(command).status = Status::Running;
    }
    taken
}

/// Gives up a command that takes too long. What lives is only slow, which is counted.
pub(super) fn time_out(world: &mut World, command: CommandNumber) -> bool {
    let node = world.node(world.command(command).node);
    let lives = match world.command(command).status {
        Status::Pending => node.alive && node.is_member(),
        Status::Running => has_process(world, command),
        _ => return false,
    };
    if !spend_delay(world, lives) {
        return false;
    }
    let command = world.command_mut(command);
    command.status = match command.status {
        Status::Pending => Status::Undelivered,
        _ => Status::TimedOut,
    };
    true
}

/// Lets the time pass in which an agent takes a command.
pub(super) fn grow_overdue(world: &mut World, command: CommandNumber) -> bool {
    let pending = world.command(command).status == Status::Pending;
    let alive = world.node(world.command(command).node).alive;
    if !pending || world.command(command).overdue || !spend_delay(world, alive) {
        return false;
    }
    world.command_mut(command).overdue = true;
    true
}

/// Lets the commit window of a backup pass that nobody has committed.
pub(super) fn grow_late(world: &mut World, number: CommandNumber) -> bool {
    let command = world.command(number);
    let Status::Ended(Outcome::BackedUp(run)) = command.status else {
        return false;
    };
    let committed = world.manifests.contains_key(&world.run(run).backup);
    if committed || command.late || !spend_delay(world, true) {
        return false;
    }
    world.command_mut(number).late = true;
    true
}

/// Lets an agent register, or be heard of again.
pub(super) fn hear(world: &mut World, node: NodeNumber) -> bool {
    let node = world.node_mut(node);
    let heard = node.alive && node.agent != Agent::Online && node.is_member();
    if heard {
        node.agent = Agent::Online;
    }
    heard
}

/// Lets an agent's ping fail.
pub(super) fn lose(world: &mut World, number: NodeNumber) -> bool {
    let node = world.node(number);
    let (online, alive) = (node.agent == Agent::Online && node.is_member(), node.alive);
    if !online || !spend_delay(world, alive) {
        return false;
    }
    world.node_mut(number).agent = Agent::Lost;
    true
}

/// Tells whether the agent works on a command.
pub(super) fn has_process(world: &World, command: CommandNumber) -> bool {
    let node = world.node(world.command(command).node);
    node.processes
        .iter()
        .any(|process| process.command == command)
}

/// Counts a delay, where it is one of something that lives; `false` where there were enough.
pub(super) fn spend_delay(world: &mut World, lives: bool) -> bool {
    if !lives {
        return true;
    }
    match world.left.delays.checked_sub(1) {
        Some(left) => {
            world.left.delays = left;
            true
        }
        None => false,
    }
}
