//! Planted defects of the model's own world: each breaks one promise, which proves that its check can fail.

use super::promises::Promise;

/// A defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// The agent restores without reading what it restores.
    RestoresUnread,
    /// The restore function does not read the application's parameter: an emptied bucket looks like a first boot.
    IgnoresParameter,
    /// The backup function commits what a node reports without a look at S3.
    CommitsUnchecked,
    /// The agent backs up a node without a marker.
    IgnoresMarker,
    /// The guard is not asked before a commit.
    SkipsGuard,
    /// The guard is not asked about an instance that leaves.
    ForgetsTheLeft,
    /// The manifest is put without a condition, and without a look at what is there.
    OverwritesManifests,
    /// Retention keeps only the newest backup.
    RetiresTheGood,
    /// The backup function answers the terminate hook although the node was busy, and says nothing.
    AnswersUnsaved,
    /// The listing of backups lacks the newest.
    HidesNewest,
    /// The restore function lets a restored instance into service without another look at the backups.
    LooksOnce,
    /// The breaker never trips.
    NeverTrips,
    /// No sweep looks at launching instances, so a lost event is lost.
    NeverLooksAgain,
}

impl Plant {
    /// Every defect.
    pub const ALL: &[Self] = &[
        Self::RestoresUnread,
        Self::IgnoresParameter,
        Self::CommitsUnchecked,
        Self::IgnoresMarker,
        Self::SkipsGuard,
        Self::ForgetsTheLeft,
        Self::OverwritesManifests,
        Self::RetiresTheGood,
        Self::AnswersUnsaved,
        Self::HidesNewest,
        Self::LooksOnce,
        Self::NeverTrips,
        Self::NeverLooksAgain,
    ];

    /// Returns the promise that it breaks.
    pub fn breaks(self) -> Promise {
        match self {
            Self::RestoresUnread | Self::IgnoresParameter => Promise::RestoredBeforeService,
            Self::CommitsUnchecked => Promise::CompleteBeforeVisible,
            Self::IgnoresMarker => Promise::RestoredBeforeBackedUp,
            Self::SkipsGuard => Promise::DoubtfulKeptAside,
            Self::ForgetsTheLeft => Promise::OneTruth,
            Self::OverwritesManifests | Self::RetiresTheGood => Promise::CommittedStays,
            Self::AnswersUnsaved => Promise::NoSilentLoss,
            Self::HidesNewest | Self::LooksOnce => Promise::NewestGoodRestored,
            Self::NeverTrips => Promise::LaunchesEnd,
            Self::NeverLooksAgain => Promise::SweepsSuffice,
        }
    }

    /// Returns the beginning in which it shows.
    pub fn shows_in(self) -> &'static str {
        match self {
            Self::RetiresTheGood => "old backups",
            Self::IgnoresParameter | Self::NeverTrips => "an emptied bucket",
            Self::RestoresUnread | Self::HidesNewest | Self::CommitsUnchecked => "damaged backups",
            Self::SkipsGuard => "an emptied database",
            Self::IgnoresMarker => "an adopted node",
            Self::NeverLooksAgain | Self::OverwritesManifests => "a planned replacement",
            Self::LooksOnce => "a hook that expires",
            Self::AnswersUnsaved | Self::ForgetsTheLeft => "everything is slow",
        }
    }
}
