//! The restore function. It gathers facts from the model's world as `gather` gathers them from AWS, calls the shipped
//! decisions, and makes one call after the other.

use super::breaker;
use crate::model::aws::group;
use crate::model::aws::ssm::{self, Sent};
use crate::model::decide::{
    self, AdmissionFacts, Cause, LaunchDecision, LaunchFacts, LaunchPredecessor, Source,
    StoredBackups, StoredManifest,
};
use crate::model::protocol::Protocol;
use crate::model::protocol::defects::Defect;
use crate::model::protocol::situations::Situation;
use crate::model::world::{
    BackupNumber, Call, Data, Lifecycle, Manifest, Node, NodeNumber, Promise, Request, World,
};

/// Handles the event of a launch hook or of a finished restore, or a sweep that finds the instance.
pub(in crate::model) fn handle_launching(
    protocol: &Protocol,
    world: &World,
    node: NodeNumber,
) -> Option<Call> {
    match decide::launch(&facts(world, node)) {
        LaunchDecision::Nothing => None,
        LaunchDecision::Choose { fence_broken_by } => Some(Call::ChooseBackup {
            node,
            fence_broken_by,
        }),
        LaunchDecision::Admit {
            restored,
            reports_skipped,
        } => Some(Call::CheckAdmission {
            node,
            restored,
            reports_skipped,
        }),
        LaunchDecision::Abandon(abandon) => {
            if abandon.cause == Cause::PredecessorActive {
                protocol.note(Situation::PredecessorActive);
            }
            Some(breaker::before_abandoning(
                protocol,
                world,
                node,
                abandon.permanent,
            ))
        }
    }
}

fn facts(world: &World, node: NodeNumber) -> LaunchFacts {
    let attempts = world.numbered_commands().filter(|(_, command)| {
        command.node == node && matches!(command.request, Request::Restore(_))
    });
    let launching = world.node(node);
    LaunchFacts {
        node,
        lifecycle: launching.lifecycle,
        waited: launching.waited,
        predecessor: predecessor(world, node),
        agent: launching.agent,
        attempts: attempts
            .map(|(number, command)| (number, command.status))
            .collect(),
    }
}

/// Returns the member that the fence waits for, or `None` if there is none.
fn predecessor(world: &World, node: NodeNumber) -> Option<LaunchPredecessor> {
    let others = || world.numbered_nodes().filter(|(number, _)| *number != node);
    let active = others().find(|(_, it)| it.lifecycle == Lifecycle::InService && it.healthy);
    let leaving = || {
        others()
            .find(|(_, it)| matches!(it.lifecycle, Lifecycle::Terminating | Lifecycle::Proceeding))
    };
    let active = active.map(|(number, _)| LaunchPredecessor::InService(number));
    active.or_else(|| leaving().map(|(number, _)| LaunchPredecessor::Terminating(number)))
}

/// Lists the backups, reads their manifests, and chooses the candidates.
pub(in crate::model) fn choose_backup(
    protocol: &Protocol,
    world: &mut World,
    node: NodeNumber,
    fence_broken_by: Option<NodeNumber>,
) -> Call {
    let hidden = usize::from(protocol.has(Defect::HidesNewest) && world.manifests.len() > 1);
    let mut facts = stored_backups(world);
    facts.manifests.drain(..hidden);
    facts.parameter &= !protocol.has(Defect::IgnoresParameter);
    if fence_broken_by.is_some() {
        protocol.note(Situation::FenceBroken);
    }
    match decide::source(&facts) {
        Source::FirstBoot => {
            if world.parameter || !world.manifests.is_empty() {
                world.broken = Some(Promise::RestoredBeforeService);
            }
            Call::SendRestore {
                node,
                candidates: Vec::new(),
                has_gaps: fence_broken_by.is_some(),
            }
        }
        Source::Restore {
            candidates,
            skipped_manifests,
        } => {
            if skipped_manifests {
                protocol.note(Situation::ManifestSkipped);
            }
            let readable = |(_, manifest): &(&BackupNumber, &Manifest)| manifest.readable;
            let newest = world.manifests.iter().rev().find(readable);
            if newest.map(|(backup, _)| backup) != candidates.first() {
                world.broken = Some(Promise::NewestGoodRestored);
            }
            Call::SendRestore {
                node,
                candidates,
                has_gaps: skipped_manifests || fence_broken_by.is_some(),
            }
        }
        Source::Abandon(abandon) => {
            if abandon.cause == Cause::BackupsGone {
                protocol.note(Situation::BackupsGone);
            }
            breaker::before_abandoning(protocol, world, node, abandon.permanent)
        }
    }
}

/// Returns the application's stored backups, newest first.
fn stored_backups(world: &World) -> StoredBackups {
    let newest_first = world.manifests.iter().rev();
    let listed = newest_first.map(|(backup, manifest)| StoredManifest {
        backup: *backup,
        run: manifest.run,
        of: world.run(manifest.run).node,
        readable: manifest.readable,
    });
    StoredBackups {
        manifests: listed.collect(),
        parameter: world.parameter,
    }
}

/// Lists the backups again after a successful restore: a newer one may have been committed meanwhile.
pub(in crate::model) fn check_admission(
    protocol: &Protocol,
    world: &mut World,
    number: NodeNumber,
    restored: Option<BackupNumber>,
    reports_skipped: bool,
) -> Call {
    let node = world.node(number);
    let facts = AdmissionFacts {
        node: number,
        restored,
        skipped: node.skipped.clone(),
        stored: stored_backups(world),
    };
    if decide::is_overtaken(&facts) && !protocol.has(Defect::SkipsAdmissionCheck) {
        protocol.note(Situation::Overtaken);
        return breaker::before_abandoning(protocol, world, number, false);
    }
    let mut listed = facts.stored.manifests.iter();
    let newest = listed.find(|it| it.readable && !node.skipped.contains(&it.backup));
    if newest.is_some_and(|it| it.of != number && Some(it.backup) > restored) {
        world.broken = Some(Promise::NewestGoodRestored);
    }
    breaker::before_admitting(world, number, reports_skipped)
}

/// Sends the restore document.
pub(in crate::model) fn send_restore(
    protocol: &Protocol,
    world: &mut World,
    node: NodeNumber,
    candidates: Vec<BackupNumber>,
    has_gaps: bool,
) -> Option<Call> {
    match ssm::send(world, node, Request::Restore(candidates)) {
        Sent::Accepted => has_gaps.then_some(Call::LogGaps { node }),
        Sent::Refused => decide::agent_is_lost(&facts(world, node))
            .then(|| breaker::before_abandoning(protocol, world, node, false)),
        Sent::Throttled => None,
    }
}

/// Answers the launch hook with CONTINUE.
pub(in crate::model) fn admit(
    protocol: &Protocol,
    world: &mut World,
    number: NodeNumber,
    reports_skipped: bool,
) -> Option<Call> {
    if world.node(number).lifecycle != Lifecycle::Launching {
        protocol.note(Situation::AnsweredTwice);
        return None;
    }
    if let Some(promise) = broken_by_admission(world.node(number), reports_skipped) {
        world.broken = Some(promise);
    }
    if reports_skipped {
        report_gaps(world, number);
    }
    let node = world.node_mut(number);
    node.lifecycle = Lifecycle::InService;
    (node.served, node.admitted) = (true, true);
    world.launches_in_row = 0;
    None
}

/// Reports that a restore lacks data of earlier instances.
pub(in crate::model) fn report_gaps(world: &mut World, restored: NodeNumber) {
    let before = world.nodes.iter_mut().take(usize::from(restored));
    before.for_each(|node| node.reported = true);
}

fn broken_by_admission(node: &Node, reports_skipped: bool) -> Option<Promise> {
    let restored = matches!(node.data, Data::FirstBoot | Data::FromBackup(_));
    if !restored || node.marker != Some(node.data) {
        return Some(Promise::RestoredBeforeService);
    }
    (!node.skipped.is_empty() && !reports_skipped).then_some(Promise::NewestGoodRestored)
}

/// Answers the launch hook with ABANDON.
pub(in crate::model) fn abandon(
    protocol: &Protocol,
    world: &mut World,
    node: NodeNumber,
) -> Option<Call> {
    if !group::abandon_launch(world, node) {
        protocol.note(Situation::AnsweredTwice);
        return None;
    }
    Some(Call::LogAbandoned { node })
}
