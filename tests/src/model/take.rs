//! What a step does to the world.

use super::calls::{self, Call, take_up};
use super::situations::Situation;
use super::steps::Step;
use super::world::{self, NodeNumber, Outcome, Purpose, Stage, Standing, World};
use super::{
    Protocol, agent, backup_function, circuit, commit, group, restore_function, retention, ssm,
};

/// Takes a step; `false` where nothing comes of it.
pub(super) fn take(protocol: &Protocol, world: &mut World, step: &Step) -> bool {
    let taken = match *step {
        Step::ScheduleFires => {
            world.left.ticks -= 1;
            world.tick = Some(world.next_backup);
            world.next_backup += 1;
            true
        }
        Step::Tick
        | Step::LookAfter
        | Step::Adopt
        | Step::WatchBreaker
        | Step::Accept(_)
        | Step::LookAtLaunching(_)
        | Step::LookAtLeaving(_)
        | Step::Settle(_) => hint(protocol, world, step),
        Step::Call(index) => {
            let call = world.calls.remove(index);
            let next = make(protocol, world, call);
            take_up(world, next);
            true
        }
        Step::Crash(index) => crash(protocol, world, index),
        Step::Hear(node) => ssm::hear(world, node),
        Step::Lose(node) => ssm::lose(world, node),
        Step::Deliver(command) => {
            let delivered = ssm::deliver(world, command);
            if delivered {
                agent::start(protocol, world, command);
            }
            delivered
        }
        Step::Redeliver(command) => {
            let alive = world.node(world.command(command).node).alive;
            if alive {
                world.left.redeliveries -= 1;
                agent::start(protocol, world, command);
            }
            alive
        }
        Step::TimeOut(command) => ssm::time_out(world, command),
        Step::GrowOverdue(command) => ssm::grow_overdue(world, command),
        Step::GrowLate(command) => ssm::grow_late(world, command),
        Step::Work(node, index) => agent::work(protocol, world, node, index),
        Step::Fail(node, index, code) => {
            world.left.failures -= 1;
            agent::fail(world, node, index, code)
        }
        Step::Kill(node, index) => kill(protocol, world, node, index),
        Step::GiveUpWaiting(node, index) => {
            world.left.delays -= 1;
            agent::give_up_waiting(protocol, world, node, index)
        }
        Step::GiveWay(node) => agent::give_way(protocol, world, node),
        Step::Die(node) => die(world, node),
        Step::AgeBreaker => circuit::age(world),
        Step::Launch => group::launch(world),
        Step::Terminate(node) => group::terminate(world, node),
        Step::Empty(node) => {
            world.left.emptyings -= 1;
            world.node_mut(node).emptied = true;
            true
        }
        Step::Sicken(node) => group::sicken(world, node),
        Step::Remove(node) => group::remove(world, node),
        Step::Expire(node) => group::expire(world, node),
        Step::Wait(node, waited) => group::wait(world, node, waited),
        Step::Damage(run) => {
            world.left.damages -= 1;
            world.runs[usize::from(run)].sound = false;
            // Between the look at the objects and the manifest it is as good as after it.
            !world
                .calls
                .iter()
                .any(|call| matches!(call, Call::PutManifest { run: put, .. } if *put == run))
        }
        Step::DamageManifest(backup) => {
            world.left.damages -= 1;
            let manifest = world.manifests.get_mut(&backup);
            manifest.map(|manifest| manifest.readable = false).is_some()
        }
    };
    if taken {
        forget_the_gone(world);
    }
    taken
}

/// Delivers an event, or sweeps; `false` where it finds nothing to do.
fn hint(protocol: &Protocol, world: &mut World, step: &Step) -> bool {
    let before = (world.calls.len(), told(world));
    let call = match *step {
        Step::Tick => world
            .tick
            .and_then(|backup| backup_function::start(protocol, world, backup, Purpose::Scheduled)),
        Step::LookAfter => backup_function::look_after(world),
        Step::WatchBreaker => circuit::watch(world),
        Step::Adopt => {
            let named = world.next_backup;
            let call = backup_function::adopt(protocol, world, named);
            if call.is_some() {
                world.left.adoptions -= 1;
                world.next_backup += 1;
            }
            call
        }
        Step::Accept(backup) => {
            world.left.acceptances -= 1;
            Some(Call::PutAccepted { backup })
        }
        Step::LookAtLaunching(node) => restore_function::look_at_launching(protocol, world, node),
        Step::LookAtLeaving(node) => backup_function::look_at_leaving(protocol, world, node),
        Step::Settle(command) => backup_function::settle(protocol, world, command),
        _ => None,
    };
    take_up(world, call);
    before != (world.calls.len(), told(world))
}

fn told(world: &World) -> usize {
    world.nodes.iter().filter(|node| node.told).count()
}

/// Makes a call; returns the next one of its invocation.
fn make(protocol: &Protocol, world: &mut World, call: Call) -> Option<Call> {
    match call {
        Call::SendBackup {
            node,
            backup,
            purpose,
        } => backup_function::send_backup(world, node, backup, purpose),
        Call::CheckObjects { command, run } => commit::check_objects(protocol, world, command, run),
        Call::PutManifest {
            command,
            run,
            aside,
        } => commit::put_manifest(protocol, world, command, run, aside),
        Call::PutAccepted { backup } => commit::put_accepted(protocol, world, backup),
        Call::DropAside { backup } => {
            world.aside.remove(&backup);
            None
        }
        Call::PutParameter { command } => commit::put_parameter(protocol, world, command),
        Call::ListExpired => retention::list(protocol, world),
        Call::DeleteManifests { backups } => {
            Some(retention::delete_manifests(protocol, world, backups))
        }
        Call::DeleteObjects { backups } => {
            retention::delete_objects(world, &backups);
            None
        }
        Call::AnswerLeaving { node, last } => {
            backup_function::answer_leaving(protocol, world, node, last)
        }
        Call::TellLoss { node } | Call::TellAbandoned { node } => {
            world.node_mut(node).told = true;
            None
        }
        Call::TellConcessions { node } => {
            restore_function::tell_lacks(world, node);
            None
        }
        Call::SendFinal { node } => backup_function::send_final(world, node),
        Call::CancelFinal { command } => backup_function::cancel_final(protocol, world, command),
        Call::ChooseBackup {
            node,
            fence_broken_by,
        } => Some(restore_function::choose_backup(
            protocol,
            world,
            node,
            fence_broken_by,
        )),
        Call::SendRestore {
            node,
            candidates,
            concedes,
        } => restore_function::send_restore(protocol, world, node, candidates, concedes),
        Call::LookAgain {
            node,
            restored,
            tells_skipped,
        } => Some(restore_function::look_again(
            protocol,
            world,
            node,
            restored,
            tells_skipped,
        )),
        Call::Admit {
            node,
            tells_skipped,
        } => restore_function::admit(protocol, world, node, tells_skipped),
        Call::Abandon { node } => restore_function::abandon(protocol, world, node),
        Call::TripBreaker { node, trips } => Some(circuit::trip(protocol, world, node, trips)),
        Call::SuspendLaunches { node } => Some(circuit::suspend(world, node)),
        Call::ResumeLaunches { resumption } => Some(circuit::resume(world, resumption)),
        Call::RecordBreaker { resumption } => circuit::record(protocol, world, resumption),
    }
}

fn crash(protocol: &Protocol, world: &mut World, index: usize) -> bool {
    world.left.crashes -= 1;
    match world.calls.remove(index) {
        Call::PutParameter { command: Some(_) } => protocol.reach(Situation::CrashBeforeParameter),
        Call::AnswerLeaving {
            last: calls::Last::Committed,
            ..
        } => protocol.reach(Situation::CrashBeforeHook),
        // Lambda counts the invocation as an error, and the alarm on errors tells that something was not said.
        Call::TellLoss { node } | Call::TellAbandoned { node } => {
            world.node_mut(node).told = true;
            protocol.reach(Situation::CrashBeforeTelling);
        }
        Call::TellConcessions { node } => restore_function::tell_lacks(world, node),
        _ => {}
    }
    true
}

fn kill(protocol: &Protocol, world: &mut World, node: NodeNumber, index: usize) -> bool {
    world.left.kills -= 1;
    let process = world.node_mut(node).processes.remove(index);
    match process.stage {
        Stage::Marking(_) => protocol.reach(Situation::KilledBeforeMarker),
        Stage::Recording(Outcome::BackedUp(_)) => protocol.reach(Situation::KilledBeforeRecord),
        _ => {}
    }
    true
}

fn die(world: &mut World, number: NodeNumber) -> bool {
    if world.node(number).is_member() {
        world.left.deaths -= 1;
    }
    let node = world.node_mut(number);
    node.alive = false;
    node.processes.clear();
    true
}

/// What an instance holds that is gone for good means nothing any more.
fn forget_the_gone(world: &mut World) {
    for number in 0..world.nodes.len() {
        let number = u8::try_from(number).unwrap_or(u8::MAX);
        let node = world.node(number);
        if node.standing != Standing::Gone {
            continue;
        }
        let busy = node.alive && !node.processes.is_empty();
        let (served, told) = (node.served, node.told);
        if !busy {
            let blank = world::Node {
                standing: Standing::Gone,
                alive: false,
                served,
                told,
                ..world::Node::launched()
            };
            *world.node_mut(number) = blank;
        }
    }
}
