//! Everything that can happen next, one small step at a time.

use shared::report::ExitCode;

use super::plants::Plant;
use super::world::{
    Agent, Ask, BackupNumber, Breaker, CommandNumber, NodeNumber, Outcome, RunNumber, Standing,
    Status, Waited, World,
};
use super::{Protocol, ssm};

/// A step. An event is a hint: once it has a cause it may come at any time, any number of times, or never, and so may
/// the sweep that looks at the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The schedule names the next backup.
    ScheduleFires,
    /// The tick's event, or one more delivery of it.
    Tick,
    /// A tick looks after the application's parameter.
    LookAfter,
    /// An operator adopts the running node.
    Adopt,
    /// An operator accepts a backup that is kept aside.
    Accept(BackupNumber),
    /// A sweep looks at the breaker.
    WatchBreaker,
    /// Time passes since the breaker tripped.
    AgeBreaker,
    /// A launch event, a finished restore's event, or a sweep.
    LookAtLaunching(NodeNumber),
    /// A terminate event, or a sweep.
    LookAtLeaving(NodeNumber),
    /// A finished backup's event, or a sweep.
    Settle(CommandNumber),
    /// An invocation makes its next call.
    Call(usize),
    /// An invocation ends before its next call.
    Crash(usize),
    /// An agent registers, or is heard of again.
    Hear(NodeNumber),
    /// An agent's ping fails.
    Lose(NodeNumber),
    /// SSM delivers a command.
    Deliver(CommandNumber),
    /// SSM delivers a command again whose process died.
    Redeliver(CommandNumber),
    /// SSM gives a command up.
    TimeOut(CommandNumber),
    /// The time for an agent to take a command passes.
    GrowOverdue(CommandNumber),
    /// The commit window passes.
    GrowLate(CommandNumber),
    /// A process of the agent goes one step further.
    Work(NodeNumber, usize),
    /// It fails by itself.
    Fail(NodeNumber, usize, ExitCode),
    /// It is killed.
    Kill(NodeNumber, usize),
    /// It has waited for the lock for too long.
    GiveUpWaiting(NodeNumber, usize),
    /// A scheduled backup ends for the final one.
    GiveWay(NodeNumber),
    /// The machine is gone.
    Die(NodeNumber),
    /// The group launches an instance.
    Launch,
    /// The group terminates a member.
    Terminate(NodeNumber),
    /// Most rows of a serving node are deleted.
    Empty(NodeNumber),
    /// The group finds a living member unhealthy.
    Sicken(NodeNumber),
    /// A member whose hook is answered leaves the group.
    Remove(NodeNumber),
    /// A hook's time runs out.
    Expire(NodeNumber),
    /// Time passes in the launch hook.
    Wait(NodeNumber, Waited),
    /// An object of a run is damaged.
    Damage(RunNumber),
    /// A manifest is damaged.
    DamageManifest(BackupNumber),
}

/// Lists the steps that may be possible.
pub(super) fn possible(protocol: &Protocol, world: &World, steps: &mut Vec<Step>) {
    if world.broken.is_some() {
        return;
    }
    if world.calls.len() < protocol.most_calls {
        hints(protocol, world, steps);
    }
    for call in 0..world.calls.len() {
        steps.push(Step::Call(call));
        if world.left.crashes > 0 {
            steps.push(Step::Crash(call));
        }
    }
    of_commands(world, steps);
    for (number, node) in world.numbered_nodes() {
        of_node(world, number, steps);
        for index in 0..node.processes.len() {
            of_process(world, number, index, steps);
        }
    }
    if matches!(world.breaker, Some(Breaker::Open { .. })) {
        steps.push(Step::AgeBreaker);
    }
    if world.left.launches > 0 {
        steps.push(Step::Launch);
    }
    if world.left.ticks > 0 {
        steps.push(Step::ScheduleFires);
    }
    if world.left.damages > 0 {
        let sound = (0..)
            .zip(&world.runs)
            .filter(|(_, run)| run.complete && run.sound);
        steps.extend(sound.map(|(run, _)| Step::Damage(run)));
        let readable = world
            .manifests
            .iter()
            .filter(|(_, manifest)| manifest.readable);
        steps.extend(readable.map(|(backup, _)| Step::DamageManifest(*backup)));
    }
}

fn hints(protocol: &Protocol, world: &World, steps: &mut Vec<Step>) {
    if world.tick.is_some() {
        steps.push(Step::Tick);
    }
    if !world.parameter && !world.manifests.is_empty() {
        steps.push(Step::LookAfter);
    }
    if matches!(world.breaker, Some(Breaker::Open { .. })) {
        steps.push(Step::WatchBreaker);
    }
    if world.left.adoptions > 0 {
        steps.push(Step::Adopt);
    }
    if world.left.acceptances > 0 {
        steps.extend(world.aside.keys().map(|backup| Step::Accept(*backup)));
    }
    for (number, node) in world.numbered_nodes() {
        match node.standing {
            Standing::Waiting => {
                let commanded = world.commands.iter().any(|command| command.node == number);
                if !commanded || !protocol.has(Plant::NeverLooksAgain) {
                    steps.push(Step::LookAtLaunching(number));
                }
            }
            Standing::Leaving => steps.push(Step::LookAtLeaving(number)),
            Standing::Serving | Standing::Left | Standing::Gone => {}
        }
    }
    let finished = world.numbered_commands().filter(|(_, command)| {
        matches!(command.ask, Ask::Backup { .. }) && command.status.is_finished()
    });
    steps.extend(finished.map(|(number, _)| Step::Settle(number)));
}

fn of_commands(world: &World, steps: &mut Vec<Step>) {
    for (number, command) in world.numbered_commands() {
        match command.status {
            Status::Pending => {
                let deliver = [Step::Deliver(number), Step::TimeOut(number)];
                steps.extend(deliver);
                steps.push(Step::GrowOverdue(number));
            }
            Status::Running => {
                steps.push(Step::TimeOut(number));
                if world.left.redeliveries > 0 && !ssm::has_process(world, number) {
                    steps.push(Step::Redeliver(number));
                }
            }
            Status::Ended(Outcome::BackedUp(_)) if world.left.delays > 0 => {
                steps.push(Step::GrowLate(number));
            }
            _ => {}
        }
    }
}

fn of_node(world: &World, number: NodeNumber, steps: &mut Vec<Step>) {
    let node = world.node(number);
    if node.standing == Standing::Gone {
        if node.alive {
            steps.push(Step::Die(number));
        }
        return;
    }
    match node.agent {
        Agent::Online => steps.push(Step::Lose(number)),
        _ => steps.push(Step::Hear(number)),
    }
    if node.alive && world.left.deaths > 0 {
        steps.push(Step::Die(number));
    }
    steps.push(Step::GiveWay(number));
    match node.standing {
        Standing::Waiting => {
            let limits = [
                Waited::PastReady,
                Waited::PastFence,
                Waited::PastBoth,
                Waited::PastCap,
            ];
            steps.extend(limits.map(|waited| Step::Wait(number, waited)));
            steps.extend([Step::Terminate(number), Step::Expire(number)]);
        }
        Standing::Serving => {
            steps.extend([Step::Terminate(number), Step::Sicken(number)]);
            if world.left.emptyings > 0 && !node.emptied {
                steps.push(Step::Empty(number));
            }
        }
        Standing::Leaving => steps.push(Step::Expire(number)),
        Standing::Left => steps.push(Step::Remove(number)),
        Standing::Gone => {}
    }
}

fn of_process(world: &World, node: NodeNumber, index: usize, steps: &mut Vec<Step>) {
    steps.push(Step::Work(node, index));
    if world.left.kills > 0 {
        steps.push(Step::Kill(node, index));
    }
    if world.left.delays > 0 {
        steps.push(Step::GiveUpWaiting(node, index));
    }
    if world.left.failures > 0 {
        let codes = [
            ExitCode::Dump,
            ExitCode::StartCommand,
            ExitCode::DiskTooSmall,
        ];
        steps.extend(codes.map(|code| Step::Fail(node, index, code)));
    }
}
