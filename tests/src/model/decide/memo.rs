//! A cache of decisions.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;

/// The decisions that were made before. A decision is a function of its facts, so each is made once.
pub(super) struct Memo<Facts, Decision>(RefCell<HashMap<Facts, Decision>>);

impl<Facts: Eq + Hash + Clone, Decision: Clone> Memo<Facts, Decision> {
    pub(super) fn new() -> Self {
        Self(RefCell::default())
    }

    /// Returns the decision about these facts.
    pub(super) fn get(&self, facts: &Facts, decide: impl FnOnce(&Facts) -> Decision) -> Decision {
        if let Some(decision) = self.0.borrow().get(facts) {
            return decision.clone();
        }
        let decision = decide(facts);
        self.0.borrow_mut().insert(facts.clone(), decision.clone());
        decision
    }
}
