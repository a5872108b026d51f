//! Defects that tests inject into the model. Each breaks one promise, which proves that the promise's check can fail.

use crate::model::world::Promise;

/// Defines the defects from one table: the defect, the promise that it breaks, and the scenario that shows it.
macro_rules! defects {
    ($($(#[$doc:meta])* $variant:ident breaks $promise:ident in $scenario:literal,)*) => {
        /// A defect.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Defect {
            $($(#[$doc])* $variant,)*
        }

        impl Defect {
            /// Every defect.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the promise that the defect breaks.
            pub fn breaks(self) -> Promise {
                match self { $(Self::$variant => Promise::$promise,)* }
            }

            /// Returns the name of the scenario in which the promise breaks.
            pub fn scenario(self) -> &'static str {
                match self { $(Self::$variant => $scenario,)* }
            }
        }
    };
}

defects! {
    /// The agent restores a backup without verifying it.
    RestoresUnverified breaks RestoredBeforeService in "damaged backups",
    /// The restore function does not read the application's parameter, so that an emptied bucket looks like a first
    /// boot.
    IgnoresParameter breaks RestoredBeforeService in "an emptied bucket",
    /// The backup function commits a reported backup without checking its objects in S3.
    CommitsUnchecked breaks CompleteBeforeVisible in "damaged backups",
    /// The agent backs up a node without a marker.
    IgnoresMarker breaks RestoredBeforeBackedUp in "an adopted node",
    /// The backup function commits without calling the guard.
    SkipsGuard breaks SuspiciousQuarantined in "an emptied database",
    /// The backup function commits a terminating instance's backup without calling the guard.
    SkipsGuardForTerminating breaks OneCurrentNode in "everything is slow",
    /// The backup function overwrites an existing manifest.
    OverwritesManifests breaks CommittedStays in "a planned replacement",
    /// Retention keeps only the newest backup.
    DeletesGoodBackups breaks CommittedStays in "old backups",
    /// The backup function answers the terminate hook although the node was busy, and logs no loss.
    AnswersBusyHook breaks NoSilentLoss in "everything is slow",
    /// The listing of backups omits the newest.
    HidesNewest breaks NewestGoodRestored in "damaged backups",
    /// The restore function admits a restored instance without listing the backups again.
    SkipsAdmissionCheck breaks NewestGoodRestored in "a hook that expires",
    /// The breaker never trips.
    NeverTrips breaks LaunchesStop in "an emptied bucket",
    /// No sweep handles launching instances, so that a lost event has lasting effects.
    NeverSweepsLaunches breaks SweepsSuffice in "a planned replacement",
}
