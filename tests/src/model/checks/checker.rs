//! Visits every state that can be reached from a scenario's initial state, breadth first: the first counterexample is a
//! shortest one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use stateright::{Checker as _, HasDiscoveries, Model, Property};

use super::promises;
use super::scenarios::Scenario;
use crate::model::apply;
use crate::model::protocol::Protocol;
use crate::model::protocol::situations::Situation;
use crate::model::steps::{self, Step};
use crate::model::world::{Promise, World};

/// The result of checking one scenario.
#[derive(Debug)]
pub struct Findings {
    /// The scenario's name.
    pub name: &'static str,
    /// The states that were generated, repetitions included.
    pub generated: usize,
    /// The different states.
    pub states: usize,
    /// The number of steps to the farthest state.
    pub depth: usize,
    /// The duration.
    pub duration: Duration,
    /// The broken promises, each with the steps that break it.
    pub broken: Vec<(Promise, Vec<String>)>,
    /// The situations that were reached.
    pub situations: Vec<Situation>,
}

/// Checks every state of a scenario, or stops as soon as the promise `until_broken` is broken.
pub fn check(scenario: &Scenario, threads: usize, until_broken: Option<Promise>) -> Findings {
    let began = Instant::now();
    let protocol = scenario.protocol.clone();
    let mut builder = protocol.checker().threads(threads);
    if let Some(promise) = until_broken {
        let found = BTreeSet::from([promise.name()]);
        builder = builder.finish_when(HasDiscoveries::AnyOf(found));
    }
    let checker = builder.spawn_bfs().join();
    let discoveries = checker.discoveries();
    let broken = Promise::ALL.iter().filter_map(|promise| {
        let path = discoveries.get(promise.name())?.clone();
        let steps = path.into_actions().into_iter();
        Some((*promise, steps.map(|step| format!("{step:?}")).collect()))
    });
    let reached = &scenario.protocol.reached;
    let situations = Situation::ALL.iter().copied();
    Findings {
        name: scenario.name,
        generated: checker.state_count(),
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        duration: began.elapsed(),
        broken: broken.collect(),
        situations: situations
            .filter(|situation| reached.has(*situation))
            .collect(),
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![self.initial.clone()]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        steps::possible(self, world, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        apply::apply(self, &mut next, &step).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promises::properties()
    }
}
