//! Calls the shipped decisions with the model's facts.
//!
//! Each function converts the model's facts into the types that the functions gather, calls the shipped decision, and
//! converts the result back into numbers. Every `match` on a shipped decision lists all of its variants: a new variant
//! does not compile until the model handles it, or [`left_out`] contains a reason.

mod backup;
mod breaker;
mod guard;
pub mod left_out;
mod memo;
mod reports;
mod restore;
mod retention;

pub(super) use self::backup::{
    Ending, FinalCommand, FinishedFacts, Start, Terminating, TerminatingFacts, TickFacts, answers,
    finished, may_adopt, start, terminating,
};
pub(super) use self::breaker::{
    FailureFacts, LaunchEnd, OnFailure, OnSuccess, OnSweep, SweepFacts, on_failure, on_success,
    on_sweep,
};
pub(super) use self::guard::{Continued, OlderBackup, Profile, continues, lost_most};
pub(super) use self::restore::{
    AdmissionFacts, Cause, LaunchDecision, LaunchFacts, LaunchPredecessor, Source, StoredBackups,
    StoredManifest, agent_is_lost, is_overtaken, launch, source,
};
pub(super) use self::retention::expired;
