//! The protocol from one initial state on.

pub mod defects;
pub mod situations;

use std::sync::Arc;

use self::defects::Defect;
use self::situations::{Reached, Situation};
use super::world::World;

/// The protocol from one initial state on.
#[derive(Debug, Clone)]
pub struct Protocol {
    /// The initial state.
    pub initial: World,
    /// How many invocations may run at once.
    pub max_invocations: usize,
    /// A defect injected into the model, to prove that the checker finds it.
    pub defect: Option<Defect>,
    /// The situations that were reached.
    pub reached: Arc<Reached>,
}

impl Protocol {
    /// Returns whether this defect is injected.
    pub(in crate::model) fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    /// Notes that a situation was reached.
    pub(in crate::model) fn note(&self, situation: Situation) {
        self.reached.note(situation);
    }
}
