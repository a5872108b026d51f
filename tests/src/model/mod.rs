//! A model of the protocol, small enough to be looked at as a whole: every order of events, calls and failures that a
//! bound allows, and in every state that can be reached, the promises.
//!
//! The decisions are the shipped ones: `decide` writes the model's facts out as the types that the functions gather,
//! and calls `backup::decide` and `restore::{decide, choose, attempt}`. What a function does about a decision, what
//! the agent does between two crashes, and what AWS does, is the model's own, and follows the shipped code by hand.

mod agent;
mod backup_function;
pub mod calls;
pub mod check;
mod circuit;
mod commit;
pub mod configurations;
mod decide;
mod group;
mod names;
pub mod plants;
pub mod promises;
mod restore_function;
mod retention;
pub mod situations;
mod ssm;
pub mod steps;
mod take;
pub mod world;

use std::sync::Arc;

use stateright::{Model, Property};

use self::plants::Plant;
use self::situations::{Reached, Situation};
use self::steps::Step;
use self::world::World;

/// The protocol from one beginning on.
#[derive(Debug, Clone)]
pub struct Protocol {
    /// What it begins with.
    pub beginning: World,
    /// How many invocations may be under way at once.
    pub most_calls: usize,
    /// A defect of the model's world, to prove that it is found.
    pub plant: Option<Plant>,
    /// What was come across.
    pub reached: Arc<Reached>,
}

impl Protocol {
    fn has(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    fn reach(&self, situation: Situation) {
        self.reached.note(situation);
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![self.beginning.clone()]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        steps::possible(self, world, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        take::take(self, &mut next, &step).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promises::properties()
    }
}
