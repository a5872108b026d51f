//! The promises, as properties of every state that can be reached.

use stateright::{Model as _, Property};

use crate::model::protocol::Protocol;
use crate::model::world::{Budget, Data, Lifecycle, Node, NodeNumber, Promise, Purpose, World};

/// Makes a property of each promise: the checker takes functions, and a function cannot capture the promise.
macro_rules! properties {
    ($($variant:ident)*) => {
        vec![$(Property::always(Promise::$variant.name(), |protocol, world| {
            check(Promise::$variant, protocol, world)
        }),)*]
    };
}

/// Returns a property for each promise.
pub(super) fn properties() -> Vec<Property<Protocol>> {
    properties! {
        RestoredBeforeService CompleteBeforeVisible RestoredBeforeBackedUp SuspiciousQuarantined CommittedStays NoSilentLoss
        OneCurrentNode NewestGoodRestored LaunchesStop SweepsSuffice
    }
}

fn check(promise: Promise, protocol: &Protocol, world: &World) -> bool {
    let holds = world.broken != Some(promise) && holds(promise, protocol, world);
    // The checker keeps the last counterexample of a property; the first is the shortest.
    holds || !protocol.reached.is_first_to_break(promise)
}

/// Returns whether a state keeps a promise. Steps check most of the promises and set `World::broken`.
fn holds(promise: Promise, protocol: &Protocol, world: &World) -> bool {
    match promise {
        Promise::NoSilentLoss => !loses_silently(world),
        Promise::SweepsSuffice => !is_stuck(protocol, world),
        Promise::RestoredBeforeService
        | Promise::CompleteBeforeVisible
        | Promise::RestoredBeforeBackedUp
        | Promise::SuspiciousQuarantined
        | Promise::CommittedStays
        | Promise::OneCurrentNode
        | Promise::NewestGoodRestored
        | Promise::LaunchesStop => true,
    }
}

/// Returns whether an instance in service lacks data of a terminated instance, and no log reported it. A running
/// invocation may still report it.
fn loses_silently(world: &World) -> bool {
    if !world.calls.is_empty() {
        return false;
    }
    let in_state = |wanted: Lifecycle| {
        let nodes = world.numbered_nodes();
        nodes.filter(move |(_, node)| node.lifecycle == wanted)
    };
    in_state(Lifecycle::InService).any(|(serving, node)| {
        let terminated = in_state(Lifecycle::Proceeding).chain(in_state(Lifecycle::Gone));
        let mut unreported =
            terminated.filter(|(number, it)| *number < serving && it.served && !it.reported);
        unreported.any(|(number, _)| !has_final_backup_of(world, node.data, number))
    })
}

/// Returns whether this data includes a terminated instance's final backup.
fn has_final_backup_of(world: &World, data: Data, terminated: NodeNumber) -> bool {
    let Data::FromBackup(restored) = data else {
        return false;
    };
    let mut final_backups = world.manifests.iter().filter(|(_, manifest)| {
        let run = world.run(manifest.run);
        run.node == terminated && run.purpose == Purpose::Final
    });
    final_backups.any(|(backup, _)| *backup <= restored)
}

/// Returns whether no step but a fault is possible, and no instance is in service.
fn is_stuck(protocol: &Protocol, world: &World) -> bool {
    let in_service = |node: &Node| node.lifecycle == Lifecycle::InService;
    if world.broken.is_some()
        || !world.calls.is_empty()
        || world.budget.commands == 0
        || world.nodes.iter().any(in_service)
    {
        return false;
    }
    let in_hook = |node: &Node| {
        matches!(
            node.lifecycle,
            Lifecycle::Launching | Lifecycle::Terminating
        )
    };
    if world.budget.launches == 0 && !world.nodes.iter().any(in_hook) {
        return false;
    }
    let mut steps = Vec::new();
    protocol.actions(world, &mut steps);
    let faults = faults_left(world.budget);
    !steps.into_iter().any(|step| {
        let next = protocol.next_state(world, step);
        next.is_some_and(|next| faults_left(next.budget) == faults)
    })
}

/// Returns the budget of faults only: launches and commands are counted only to bound the model.
fn faults_left(budget: Budget) -> Budget {
    Budget {
        launches: 0,
        commands: 0,
        ..budget
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_promise_is_a_property() {
        let names: Vec<_> = properties().iter().map(|property| property.name).collect();
        let promises: Vec<_> = Promise::ALL.iter().map(|promise| promise.name()).collect();
        assert_eq!(names, promises);
    }
}
