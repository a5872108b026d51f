//! The promises of the README, and how they are reported as violated.

use std::fmt;

/// A promise of the README, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// 1: only a restored node comes into service.
    Restored,
    /// 2: every committed backup is complete.
    Complete,
    /// 3: only a restored node is backed up.
    OnlyRestoredBackedUp,
    /// 4: committed backups do not change.
    Unchanged,
    /// 5: the same outcome or a reported failure, and never backups of two nodes at once.
    SameOrReported,
    /// 6: a damaged backup costs one interval of data.
    OneInterval,
    /// 7: a repeated failure stops the launches.
    Bounded,
    /// 8: recovery needs only the region's own services.
    OwnServices,
}

impl Promise {
    /// Every promise.
    pub const ALL: [Self; 8] = [
        Self::Restored,
        Self::Complete,
        Self::OnlyRestoredBackedUp,
        Self::Unchanged,
        Self::SameOrReported,
        Self::OneInterval,
        Self::Bounded,
        Self::OwnServices,
    ];

    /// Returns the promise as the report prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Restored => "1  only a restored node enters InService",
            Self::Complete => "2  every committed backup is complete",
            Self::OnlyRestoredBackedUp => "3  a node that was never restored is never backed up",
            Self::Unchanged => "4  committed backups do not change",
            Self::SameOrReported => {
                "5  the same outcome or a reported failure, and backups of one node only"
            }
            Self::OneInterval => "6  the newest good backup is restored",
            Self::Bounded => "7  a repeated failure does not relaunch forever",
            Self::OwnServices => "8  only the region's own services are called",
        }
    }
}

/// A violation of a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The promise.
    pub promise: Promise,
    /// A description of the violation.
    pub how: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "promise {}: {}", self.promise.name(), self.how)
    }
}
