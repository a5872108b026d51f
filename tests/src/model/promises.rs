//! The promises, as properties of every state that can be reached.

use stateright::{Model as _, Property};

use super::Protocol;
use super::world::{Data, Left, NodeNumber, Purpose, Standing, World};

/// Defines the promises from one table: the property's name, and how a state holds it.
macro_rules! promises {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $holds:expr;)*) => {
        /// What is promised.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Promise {
            $($(#[$doc])* $variant,)*
        }

        impl Promise {
            /// Every promise.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns its words.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        pub(super) fn properties() -> Vec<Property<Protocol>> {
            vec![$(Property::always($name, |protocol: &Protocol, world: &World| {
                let holds: fn(&Protocol, &World) -> bool = $holds;
                let held = world.broken != Some(Promise::$variant) && holds(protocol, world);
                // The checker keeps the last counterexample of a property, and the first is the shortest.
                held || !protocol.reached.is_first_to_break(Promise::$variant)
            }),)*]
        }
    };
}

promises! {
    /// Looked at when a launch hook is answered.
    RestoredBeforeService = "no instance enters service before its data are restored and verified", |_, _| true;
    /// Looked at when a manifest is put.
    CompleteBeforeVisible = "a backup is visible only if it is complete and checked", |_, _| true;
    /// Looked at when a manifest is put.
    RestoredBeforeBackedUp = "a node that was never restored is never backed up", |_, _| true;
    /// Looked at when a manifest is put.
    DoubtfulKeptAside = "a backup of another lineage, or one that lost most, is kept aside", |_, _| true;
    /// Looked at when a manifest is put, and when retention decides.
    CommittedStays = "a committed backup never changes, and the newest good ones are never taken away", |_, _| true;
    /// An instance that left has its final backup in its successor, or that it has not is said aloud.
    NoSilentLoss = "a lost, late, repeated or reordered event loses nothing in silence", |_, world| {
        !loses_in_silence(world)
    };
    /// Looked at when a manifest is put: a node's data become the truth no more once a later node's are.
    OneTruth = "two nodes are never both backed up as the truth", |_, _| true;
    /// Looked at when a restore is sent, and when its launch hook is answered.
    NewestGoodRestored = "the newest good backup is restored, and what was skipped is reported", |_, _| true;
    /// Looked at when the group launches: not after three failures in a row, nor after one that would repeat.
    LaunchesEnd = "a failure that repeats does not relaunch for ever", |_, _| true;
    /// Wherever nothing happens by itself any more, an instance serves, or the group may launch no other.
    SweepsSuffice = "without a further fault, sweeps bring an instance into service", |protocol, world| {
        !is_stuck(protocol, world)
    };
}

/// Looks for an instance in service that lacks what one that left had, without a word of it. While an invocation is
/// under way, its word may still come.
fn loses_in_silence(world: &World) -> bool {
    if !world.calls.is_empty() {
        return false;
    }
    let in_numbers = |wanted: Standing| {
        let nodes = world.numbered_nodes();
        nodes.filter(move |(_, node)| node.standing == wanted)
    };
    in_numbers(Standing::Serving).any(|(serving, node)| {
        let gone = in_numbers(Standing::Left).chain(in_numbers(Standing::Gone));
        let mut unsaid = gone.filter(|(left, it)| *left < serving && it.served && !it.told);
        unsaid.any(|(left, _)| !has_final_of(world, node.data, left))
    })
}

/// Tells whether these data descend from an instance's final backup.
fn has_final_of(world: &World, data: Data, left: NodeNumber) -> bool {
    let Data::Of(restored) = data else {
        return false;
    };
    let mut finals = world.manifests.iter().filter(|(_, manifest)| {
        let run = world.run(manifest.run);
        run.node == left && run.purpose == Purpose::Final
    });
    finals.any(|(last, _)| *last <= restored)
}

/// Tells whether nothing happens by itself any more, and no instance serves.
fn is_stuck(protocol: &Protocol, world: &World) -> bool {
    let serves = |node: &super::world::Node| node.standing == Standing::Serving;
    if world.broken.is_some()
        || !world.calls.is_empty()
        || world.left.commands == 0
        || world.nodes.iter().any(serves)
    {
        return false;
    }
    let waits =
        |node: &super::world::Node| matches!(node.standing, Standing::Waiting | Standing::Leaving);
    if world.left.launches == 0 && !world.nodes.iter().any(waits) {
        return false;
    }
    let mut steps = Vec::new();
    protocol.actions(world, &mut steps);
    let faults = without_progress(world.left);
    !steps.into_iter().any(|step| {
        let next = protocol.next_state(world, step);
        next.is_some_and(|next| without_progress(next.left) == faults)
    })
}

/// Leaves out what is counted only so that the model ends.
fn without_progress(left: Left) -> Left {
    Left {
        launches: 0,
        commands: 0,
        ..left
    }
}
