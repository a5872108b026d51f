//! The function's answers: one JSON object with the field `outcome`.

use serde::Serialize;
use shared::function::answer::{Handled, Refused};
use shared::id::ApplicationName;

/// The result of one invocation.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// One instance was handled.
    Handled(Handled),
    /// A sweep ended.
    Sweep {
        /// One entry for each instance that was handled.
        handled: Vec<Handled>,
        /// The number of failures that this sweep logged.
        failures: usize,
    },
    /// A request to resume launches was handled.
    Resumed {
        /// The application.
        application: ApplicationName,
        /// Its group, or several if they have the same tag by mistake.
        groups: Vec<ResumedGroup>,
    },
    /// Nothing was done, and a retry would not help.
    Refused(Refused),
}

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// The result of a request to resume launches in one group.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ResumedGroup {
    /// The group.
    pub(crate) group: String,
    /// Whether the group may launch now.
    pub(crate) launches: Launches,
    /// The value of `launches` as a text for the operator.
    pub(crate) message: &'static str,
}

/// Whether a group may launch after a request to resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Launches {
    /// Yes: Rekindle had suspended them, and has resumed them.
    Resumed,
    /// Yes: they were on trial, and failures count from zero again.
    NoLongerOnTrial,
    /// Yes: they were not suspended.
    WereNotSuspended,
    /// No: they stay suspended, because Rekindle did not suspend them.
    SuspendedBySomebodyElse,
}

impl Launches {
    /// Returns the text for the operator.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Resumed => "Rekindle had suspended this group's launches, and has resumed them.",
            Self::NoLongerOnTrial => {
                "This group's launches were resumed before; failures count from zero again."
            }
            Self::WereNotSuspended => "This group's launches are not suspended.",
            Self::SuspendedBySomebodyElse => {
                "Rekindle did not suspend this group's launches, so it does not resume them. To resume them: \
                 aws autoscaling resume-processes --scaling-processes Launch --auto-scaling-group-name <group>"
            }
        }
    }
}
