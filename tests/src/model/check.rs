//! Looking at every state that can be reached from a beginning, breadth first: so a counterexample is a shortest one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use stateright::{Checker as _, HasDiscoveries, Model as _};

use super::configurations::Configuration;
use super::promises::Promise;
use super::situations::Situation;

/// What came of it.
#[derive(Debug)]
pub struct Findings {
    /// What it began with.
    pub name: &'static str,
    /// States that were come to, those that were known included.
    pub come_to: usize,
    /// States.
    pub states: usize,
    /// The longest of the shortest ways to a state.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// The promises that are broken, each with the steps that lead there.
    pub broken: Vec<(Promise, Vec<String>)>,
    /// The situations that were come across.
    pub situations: Vec<Situation>,
}

/// Looks at all of it, or until one promise is found broken.
pub fn check(configuration: &Configuration, threads: usize, wanted: Option<Promise>) -> Findings {
    let began = Instant::now();
    let protocol = configuration.protocol.clone();
    let mut builder = protocol.checker().threads(threads);
    if let Some(promise) = wanted {
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
    let reached = &configuration.protocol.reached;
    let situations = Situation::ALL.iter().copied();
    Findings {
        name: configuration.name,
        come_to: checker.state_count(),
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took: began.elapsed(),
        broken: broken.collect(),
        situations: situations
            .filter(|situation| reached.has(*situation))
            .collect(),
    }
}
