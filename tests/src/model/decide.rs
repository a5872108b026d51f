//! The shipped decisions, asked with the model's facts: each question is written out as the types that the functions
//! gather, the shipped `decide` answers, and its answer is brought back to numbers.
//!
//! A decision is a function of its facts, so each question is put once and its answer kept.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;

mod backups;
mod breaker;
mod guard;
mod reports;
mod restores;
mod retention;

pub(super) use self::backups::{
    Ending, FinishedQuestion, LastCommand, Leaving, LeavingQuestion, Start, StartQuestion, answers,
    finished, leaving, may_adopt, start,
};
pub(super) use self::breaker::{
    FailedLaunch, LaunchEnd, OnFailure, OnSuccess, OnSweep, Watched, on_failure, on_success,
    on_sweep,
};
pub(super) use self::guard::{Continued, Predecessor, Profile, continues, lost_most};
pub(super) use self::restores::{
    AdmissionQuestion, Fence, Launch, LaunchQuestion, Listed, Source, SourceQuestion,
    agent_is_lost, is_overtaken, launch, source,
};
pub(super) use self::retention::expired;

/// Answers that were given before.
struct Answers<Question, Answer>(RefCell<HashMap<Question, Answer>>);

impl<Question: Eq + Hash + Clone, Answer: Clone> Answers<Question, Answer> {
    fn new() -> Self {
        Self(RefCell::default())
    }

    fn of(&self, question: &Question, ask: impl FnOnce(&Question) -> Answer) -> Answer {
        if let Some(answer) = self.0.borrow().get(question) {
            return answer.clone();
        }
        let answer = ask(question);
        self.0.borrow_mut().insert(question.clone(), answer.clone());
        answer
    }
}
