//! The promises that the model checks.

/// Defines the promises from one table: the variant and the promise as it is printed.
macro_rules! promises {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A promise of the README.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Promise {
            $($(#[$doc])* $variant,)*
        }

        impl Promise {
            /// Every promise.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the promise as a sentence.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

promises! {
    /// Checked when a launch hook is answered.
    RestoredBeforeService = "no instance enters service before its data is restored and verified",
    /// Checked when a manifest is written.
    CompleteBeforeVisible = "a backup is visible only if it is complete and verified",
    /// Checked when a manifest is written.
    RestoredBeforeBackedUp = "a node that was never restored is never backed up",
    /// Checked when a manifest is written.
    SuspiciousQuarantined = "a backup of another lineage, or one that lost most of its rows, is quarantined",
    /// Checked when a manifest is written, and when retention decides.
    CommittedStays = "a committed backup never changes, and retention never deletes the newest good backups",
    /// Checked in every state: a terminated instance's final backup is in its successor's data, or its absence was
    /// reported.
    NoSilentLoss = "a lost, late, repeated or reordered event causes no silent data loss",
    /// Checked when a manifest is written: a predecessor's backup is not committed after its successor's.
    OneCurrentNode = "two nodes are never both backed up as the current data",
    /// Checked when a restore is sent, and when its launch hook is answered.
    NewestGoodRestored = "the newest good backup is restored, and skipped backups are reported",
    /// Checked when the group launches: launches stop after three failures in a row, or after one permanent failure.
    LaunchesStop = "a repeated failure does not relaunch forever",
    /// Checked in every state without a further step: an instance is in service, or the group may launch no other.
    SweepsSuffice = "without a further fault, sweeps bring an instance into service",
}
