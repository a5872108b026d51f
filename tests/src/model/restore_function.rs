//! The restore function: facts gathered from the model's world as `gather` gathers them from AWS, the shipped
//! decisions, and one call after the other.

use super::calls::Call;
use super::decide::{
    self, AdmissionQuestion, Fence, Launch, LaunchQuestion, Listed, Source, SourceQuestion,
};
use super::plants::Plant;
use super::promises::Promise;
use super::situations::Situation;
use super::ssm::{self, Sent};
use super::world::{Ask, BackupNumber, Data, Node, NodeNumber, Standing, World};
use super::{Protocol, circuit, group};

/// Handles a launch hook's or a finished command's event, or finds the instance in a sweep.
pub(super) fn look_at_launching(
    protocol: &Protocol,
    world: &World,
    node: NodeNumber,
) -> Option<Call> {
    match decide::launch(&question(world, node)) {
        Launch::Nothing => None,
        Launch::Choose { fence_broken_by } => Some(Call::ChooseBackup {
            node,
            fence_broken_by,
        }),
        Launch::Admit {
            restored,
            tells_skipped,
        } => Some(Call::LookAgain {
            node,
            restored,
            tells_skipped,
        }),
        Launch::Abandon { because, permanent } => {
            if because == "PredecessorActive" {
                protocol.reach(Situation::PredecessorActive);
            }
            Some(circuit::before_abandoning(protocol, world, node, permanent))
        }
    }
}

fn question(world: &World, node: NodeNumber) -> LaunchQuestion {
    let attempts = world
        .numbered_commands()
        .filter(|(_, command)| command.node == node && matches!(command.ask, Ask::Restore(_)));
    let launching = world.node(node);
    LaunchQuestion {
        node,
        standing: launching.standing,
        waited: launching.waited,
        predecessor: predecessor(world, node),
        agent: launching.agent,
        attempts: attempts
            .map(|(number, command)| (number, command.status))
            .collect(),
    }
}

/// Finds the member that the restore has to wait for, as `gather::predecessor` does.
fn predecessor(world: &World, node: NodeNumber) -> Option<Fence> {
    let others = || world.numbered_nodes().filter(|(number, _)| *number != node);
    let active = others().find(|(_, it)| it.standing == Standing::Serving && it.healthy);
    let leaving =
        || others().find(|(_, it)| matches!(it.standing, Standing::Leaving | Standing::Left));
    let active = active.map(|(number, _)| Fence::Active(number));
    active.or_else(|| leaving().map(|(number, _)| Fence::Leaving(number)))
}

/// Lists the backups, reads their manifests, and chooses.
pub(super) fn choose_backup(
    protocol: &Protocol,
    world: &mut World,
    node: NodeNumber,
    fence_broken_by: Option<NodeNumber>,
) -> Call {
    let hidden = usize::from(protocol.has(Plant::HidesNewest) && world.manifests.len() > 1);
    let mut question = stock(world);
    question.manifests.drain(..hidden);
    question.parameter &= !protocol.has(Plant::IgnoresParameter);
    if fence_broken_by.is_some() {
        protocol.reach(Situation::FenceBroken);
    }
    match decide::source(&question) {
        Source::FirstBoot => {
            if world.parameter || !world.manifests.is_empty() {
                world.broken = Some(Promise::RestoredBeforeService);
            }
            Call::SendRestore {
                node,
                candidates: Vec::new(),
                concedes: fence_broken_by.is_some(),
            }
        }
        Source::Restore {
            candidates,
            passed_over,
        } => {
            if passed_over {
                protocol.reach(Situation::ManifestPassedOver);
            }
            let readable =
                |(_, manifest): &(&BackupNumber, &super::world::Manifest)| manifest.readable;
            let newest = world.manifests.iter().rev().find(readable);
            if newest.map(|(backup, _)| backup) != candidates.first() {
                world.broken = Some(Promise::NewestGoodRestored);
            }
            Call::SendRestore {
                node,
                candidates,
                concedes: passed_over || fence_broken_by.is_some(),
            }
        }
        Source::Abandon { because, permanent } => {
            if because == "BackupsGone" {
                protocol.reach(Situation::BackupsGone);
            }
            circuit::before_abandoning(protocol, world, node, permanent)
        }
    }
}

/// Lists the application's backups, newest first.
fn stock(world: &World) -> SourceQuestion {
    let newest_first = world.manifests.iter().rev();
    let listed = newest_first.map(|(backup, manifest)| Listed {
        backup: *backup,
        run: manifest.run,
        of: world.run(manifest.run).node,
        readable: manifest.readable,
    });
    SourceQuestion {
        manifests: listed.collect(),
        parameter: world.parameter,
    }
}

/// Lists the backups once more, now that a restore has succeeded: one may have been committed meanwhile.
pub(super) fn look_again(
    protocol: &Protocol,
    world: &mut World,
    number: NodeNumber,
    restored: Option<BackupNumber>,
    tells_skipped: bool,
) -> Call {
    let node = world.node(number);
    let question = AdmissionQuestion {
        node: number,
        restored,
        skipped: node.skipped.clone(),
        stock: stock(world),
    };
    if decide::is_overtaken(&question) && !protocol.has(Plant::LooksOnce) {
        protocol.reach(Situation::Overtaken);
        return circuit::before_abandoning(protocol, world, number, false);
    }
    let mut listed = question.stock.manifests.iter();
    let newest = listed.find(|it| it.readable && !node.skipped.contains(&it.backup));
    if newest.is_some_and(|it| it.of != number && Some(it.backup) > restored) {
        world.broken = Some(Promise::NewestGoodRestored);
    }
    circuit::before_admitting(world, number, tells_skipped)
}

/// Sends the restore document.
pub(super) fn send_restore(
    protocol: &Protocol,
    world: &mut World,
    node: NodeNumber,
    candidates: Vec<BackupNumber>,
    concedes: bool,
) -> Option<Call> {
    match ssm::send(world, node, Ask::Restore(candidates)) {
        Sent::Yes => concedes.then_some(Call::TellConcessions { node }),
        Sent::Refused => decide::agent_is_lost(&question(world, node))
            .then(|| circuit::before_abandoning(protocol, world, node, false)),
        Sent::Throttled => None,
    }
}

/// Answers the launch hook: into service.
pub(super) fn admit(
    protocol: &Protocol,
    world: &mut World,
    number: NodeNumber,
    tells_skipped: bool,
) -> Option<Call> {
    if world.node(number).standing != Standing::Waiting {
        protocol.reach(Situation::AnsweredTwice);
        return None;
    }
    if let Some(promise) = broken_by_admission(world.node(number), tells_skipped) {
        world.broken = Some(promise);
    }
    if tells_skipped {
        tell_lacks(world, number);
    }
    let node = world.node_mut(number);
    node.standing = Standing::Serving;
    (node.served, node.admitted) = (true, true);
    world.launches_in_row = 0;
    None
}

/// Says that a restore lacks what instances before it held.
pub(super) fn tell_lacks(world: &mut World, restored: NodeNumber) {
    let before = world.nodes.iter_mut().take(usize::from(restored));
    before.for_each(|node| node.told = true);
}

fn broken_by_admission(node: &Node, tells_skipped: bool) -> Option<Promise> {
    let restored = matches!(node.data, Data::FirstBoot | Data::Of(_));
    if !restored || node.marker != Some(node.data) {
        return Some(Promise::RestoredBeforeService);
    }
    (!node.skipped.is_empty() && !tells_skipped).then_some(Promise::NewestGoodRestored)
}

/// Answers the launch hook: to be replaced.
pub(super) fn abandon(protocol: &Protocol, world: &mut World, node: NodeNumber) -> Option<Call> {
    if !group::abandon_launch(world, node) {
        protocol.reach(Situation::AnsweredTwice);
        return None;
    }
    Some(Call::TellAbandoned { node })
}
