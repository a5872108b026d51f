//! The effect of a step on the world.

use super::agent;
use super::aws::{group, ssm};
use super::functions::{backup, breaker, calls, invocations, restore};
use super::protocol::Protocol;
use super::protocol::situations::Situation;
use super::steps::Step;
use super::world::{
    AgentOutcome, BackupNumber, Call, CommandNumber, Lifecycle, Node, NodeNumber, Purpose,
    RunNumber, Stage, World,
};

/// Applies a step. Returns `false` if it has no effect.
pub(super) fn apply(protocol: &Protocol, world: &mut World, step: &Step) -> bool {
    let applied = match *step {
        Step::ScheduleTick => schedule_tick(world),
        Step::DeliverTick
        | Step::RepairParameter
        | Step::Adopt
        | Step::SweepBreaker
        | Step::AcceptQuarantined(_)
        | Step::HandleLaunching(_)
        | Step::HandleTerminating(_)
        | Step::FinishBackup(_) => invoke(protocol, world, step),
        Step::Call(index) => call(protocol, world, index),
        Step::Crash(index) => calls::crash(protocol, world, index),
        Step::AgentOnline(node) => ssm::come_online(world, node),
        Step::AgentLost(node) => ssm::go_silent(world, node),
        Step::Deliver(command) => deliver(protocol, world, command),
        Step::Redeliver(command) => redeliver(protocol, world, command),
        Step::TimeOut(command) => ssm::time_out(world, command),
        Step::BecomeOverdue(command) => ssm::become_overdue(world, command),
        Step::BecomeLate(command) => ssm::become_late(world, command),
        Step::AgentAdvances(node, index) => agent::advance(protocol, world, node, index),
        Step::AgentFails(node, index, code) => {
            world.budget.failures -= 1;
            agent::fail(world, node, index, code)
        }
        Step::AgentKilled(node, index) => kill(protocol, world, node, index),
        Step::LockWaitEnds(node, index) => {
            world.budget.delays -= 1;
            agent::end_lock_wait(protocol, world, node, index)
        }
        Step::Preempt(node) => agent::preempt(protocol, world, node),
        Step::InstanceDies(node) => die(world, node),
        Step::AgeBreaker => breaker::age(world),
        Step::Launch => group::launch(world),
        Step::Terminate(node) => group::terminate(world, node),
        Step::DeleteRows(node) => delete_rows(world, node),
        Step::TurnUnhealthy(node) => group::turn_unhealthy(world, node),
        Step::LeaveGroup(node) => group::remove(world, node),
        Step::HookExpires(node) => group::expire(world, node),
        Step::LaunchWaits(node, waited) => group::wait(world, node, waited),
        Step::DamageObject(run) => damage_object(world, run),
        Step::DamageManifest(backup) => damage_manifest(world, backup),
    };
    if applied {
        forget_gone(world);
    }
    applied
}

fn schedule_tick(world: &mut World) -> bool {
    world.budget.ticks -= 1;
    world.tick = Some(world.next_backup);
    world.next_backup += 1;
    true
}

/// Invokes a function for an event, a sweep or a request. Returns `false` if it finds nothing to do.
fn invoke(protocol: &Protocol, world: &mut World, step: &Step) -> bool {
    let before = (world.calls.len(), reported(world));
    let call = match *step {
        Step::DeliverTick => world
            .tick
            .and_then(|backup| backup::start(protocol, world, backup, Purpose::Scheduled)),
        Step::RepairParameter => backup::repair_parameter(world),
        Step::SweepBreaker => breaker::sweep(world),
        Step::Adopt => {
            let next = world.next_backup;
            let call = backup::adopt(protocol, world, next);
            if call.is_some() {
                world.budget.adoptions -= 1;
                world.next_backup += 1;
            }
            call
        }
        Step::AcceptQuarantined(backup) => {
            world.budget.acceptances -= 1;
            Some(Call::PutAcceptedManifest { backup })
        }
        Step::HandleLaunching(node) => restore::handle_launching(protocol, world, node),
        Step::HandleTerminating(node) => backup::handle_terminating(protocol, world, node),
        Step::FinishBackup(command) => backup::finish(protocol, world, command),
        _ => None,
    };
    invocations::enqueue(world, call);
    before != (world.calls.len(), reported(world))
}

fn reported(world: &World) -> usize {
    world.nodes.iter().filter(|node| node.reported).count()
}

fn call(protocol: &Protocol, world: &mut World, index: usize) -> bool {
    let call = world.calls.remove(index);
    let next = calls::make(protocol, world, call);
    invocations::enqueue(world, next);
    true
}

fn deliver(protocol: &Protocol, world: &mut World, command: CommandNumber) -> bool {
    let delivered = ssm::deliver(world, command);
    if delivered {
        agent::start(protocol, world, command);
    }
    delivered
}

fn redeliver(protocol: &Protocol, world: &mut World, command: CommandNumber) -> bool {
    let alive = world.node(world.command(command).node).alive;
    if alive {
        world.budget.redeliveries -= 1;
        agent::start(protocol, world, command);
    }
    alive
}

fn kill(protocol: &Protocol, world: &mut World, node: NodeNumber, index: usize) -> bool {
    world.budget.kills -= 1;
    let process = world.node_mut(node).processes.remove(index);
    match process.stage {
        Stage::WritingMarker(_) => protocol.note(Situation::KilledBeforeMarker),
        Stage::Recording(AgentOutcome::BackedUp(_)) => {
            protocol.note(Situation::KilledBeforeRecord);
        }
        _ => {}
    }
    true
}

fn die(world: &mut World, number: NodeNumber) -> bool {
    if world.node(number).is_member() {
        world.budget.deaths -= 1;
    }
    let node = world.node_mut(number);
    node.alive = false;
    node.processes.clear();
    true
}

fn delete_rows(world: &mut World, node: NodeNumber) -> bool {
    world.budget.emptied -= 1;
    world.node_mut(node).emptied = true;
    true
}

fn damage_object(world: &mut World, run: RunNumber) -> bool {
    world.budget.damages -= 1;
    world.runs[usize::from(run)].sound = false;
    // Damage between the check of the objects and the manifest is the same as damage after the manifest.
    !world
        .calls
        .iter()
        .any(|call| matches!(call, Call::PutManifest { run: checked, .. } if *checked == run))
}

fn damage_manifest(world: &mut World, backup: BackupNumber) -> bool {
    world.budget.damages -= 1;
    let manifest = world.manifests.get_mut(&backup);
    manifest.map(|manifest| manifest.readable = false).is_some()
}

/// Resets what no longer matters of instances that are gone, so that states differ only in what matters.
fn forget_gone(world: &mut World) {
    for number in 0..world.nodes.len() {
        let number = u8::try_from(number).unwrap_or(u8::MAX);
        let node = world.node(number);
        if node.lifecycle != Lifecycle::Gone {
            continue;
        }
        let busy = node.alive && !node.processes.is_empty();
        let (served, reported) = (node.served, node.reported);
        if !busy {
            let blank = Node {
                lifecycle: Lifecycle::Gone,
                alive: false,
                served,
                reported,
                ..Node::launched()
            };
            *world.node_mut(number) = blank;
        }
    }
}
