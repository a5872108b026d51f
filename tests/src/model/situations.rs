//! What a run of the model must have come across, so that its promises are not held for want of trouble.

use std::sync::atomic::{AtomicU64, Ordering};

use super::promises::Promise;

/// Defines the situations from one table, each with its name in the report.
macro_rules! situations {
    ($($variant:ident = $name:literal,)*) => {
        /// A situation of interest.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Situation {
            $(#[doc = $name] $variant,)*
        }

        impl Situation {
            /// Every situation.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

situations! {
    FirstBoot = "an application's first node starts empty",
    FellBack = "a damaged newest backup is skipped, and an older one restored",
    NoUsableBackup = "every offered backup is damaged",
    BackupsGone = "the bucket is empty, and the parameter says that it was not",
    ManifestPassedOver = "an unreadable manifest is passed over",
    Overtaken = "a newer backup is committed while an older one is restored",
    FenceBroken = "a predecessor is still leaving when the fence's time is over",
    PredecessorActive = "a launch is abandoned, since another member serves",
    TwoInService = "a tick finds two members in service",
    AnsweredFromMemory = "a command is repeated, and answered from the agent's memory",
    NodeBusy = "a command finds the node busy",
    GaveWay = "a scheduled backup gives way to the final one",
    NeverRestoredRefused = "a node without a marker refuses to be backed up",
    DamageBeforeCommit = "an object is damaged before the commit, and the commit refused",
    CommittedTwice = "a backup is committed a second time",
    RivalCommit = "another run of a committed backup wants to be committed",
    CommitLate = "a backup ends too late to be committed",
    CommittedFromOutside = "a backup of an instance that has left its group is committed",
    CrashBeforeParameter = "the function dies between manifest and parameter",
    CrashBeforeHook = "the function dies between the commit of a final backup and its hook's answer",
    CrashBeforeTelling = "the function dies before it says what was lost",
    ParameterRepaired = "a tick writes the parameter again",
    AnsweredTwice = "a hook is answered a second time",
    FinalCancelled = "a final backup that no agent took is cancelled",
    KilledBeforeMarker = "an agent is killed between the swap and the marker",
    KilledBeforeRecord = "an agent is killed before it remembers a backup that is complete",
    KeptAsideSuperseded = "a backup is kept aside, since its node has a successor",
    KeptAsideLineage = "a backup is kept aside, since it does not continue the newest",
    KeptAsideLoss = "a backup is kept aside, since it lost most of its rows",
    Retired = "retention takes old backups away",
    BreakerTripped = "the breaker trips",
    BreakerTrippedAgain = "the breaker trips again after a trial",
    BreakerHalfOpened = "the breaker half-opens",
    BreakerClosed = "the breaker closes, since an instance enters service",
    Accepted = "an operator accepts a backup that was kept aside",
}

/// The situations that were come across, and the promises that were found broken.
#[derive(Debug, Default)]
pub struct Reached {
    situations: AtomicU64,
    broken: AtomicU64,
}

impl Reached {
    /// Notes a situation.
    pub(super) fn note(&self, situation: Situation) {
        self.situations
            .fetch_or(1 << situation as u64, Ordering::Relaxed);
    }

    /// Tells whether a situation was come across.
    pub fn has(&self, situation: Situation) -> bool {
        self.situations.load(Ordering::Relaxed) & (1 << situation as u64) != 0
    }

    /// Tells whether a promise was not found broken before, and notes that it is now.
    pub(super) fn is_first_to_break(&self, promise: Promise) -> bool {
        let bit = 1 << promise as u64;
        self.broken.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}
