//! The circuit breaker's record.

use super::numbers::NodeNumber;

/// The record of the group's circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Breaker {
    /// Rekindle suspended the launches, or is about to.
    Open {
        /// How many times in a row the breaker has tripped.
        trips: u8,
        /// The instance whose failure tripped it.
        node: NodeNumber,
    },
    /// The launches were resumed for a trial.
    HalfOpen {
        /// How many times in a row the breaker had tripped.
        trips: u8,
        /// How many instances had been launched before the trial.
        launched: NodeNumber,
    },
    /// Failures before this number of launches no longer count.
    Closed {
        /// The number of launches.
        launched: NodeNumber,
    },
}

/// How long ago a breaker tripped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TripAge {
    /// The call that suspends the launches may not have been made yet.
    Fresh,
    /// The suspension has taken effect.
    Effective,
    /// A trial launch is due.
    TrialDue,
}
