//! Situations that a run of the model must reach: a promise that is never tested proves nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::world::Promise;

/// Defines the situations from one table, each with its name in the report.
macro_rules! situations {
    ($($variant:ident = $name:literal,)*) => {
        /// A situation.
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
    FallbackRestored = "a damaged newest backup is skipped, and an older one restored",
    NoUsableBackup = "every offered backup is damaged",
    BackupsGone = "the bucket is empty, and the parameter records earlier backups",
    ManifestSkipped = "an unreadable manifest is skipped",
    Overtaken = "a newer backup is committed while an older one is restored",
    FenceBroken = "a predecessor is still terminating when the fence times out",
    PredecessorActive = "a launch is abandoned because another member is in service",
    TwoInService = "a tick finds two members in service",
    AnsweredFromRecord = "a repeated command is answered from the agent's record",
    NodeBusy = "a command finds the node busy",
    Preempted = "a final backup preempts a scheduled one",
    UnrestoredRefused = "the agent refuses to back up a node without a marker",
    DamageBeforeCommit = "an object is damaged before the commit, and the commit is refused",
    CommittedTwice = "a backup is committed a second time",
    ConflictingCommit = "another attempt at a committed backup is refused",
    CommitLate = "a backup ends too late for its commit",
    CommittedAfterTermination = "a backup of an instance that has left its group is committed",
    CrashBeforeParameter = "the function crashes between manifest and parameter",
    CrashBeforeHook = "the function crashes between the commit of a final backup and the hook's answer",
    CrashBeforeLog = "the function crashes before it logs a loss",
    ParameterRepaired = "a tick writes the parameter again",
    AnsweredTwice = "a hook is answered a second time",
    FinalCancelled = "the command of an undelivered final backup is cancelled",
    KilledBeforeMarker = "an agent is killed between the swap and the marker",
    KilledBeforeRecord = "an agent is killed before it records a complete backup",
    QuarantinedSuperseded = "a backup is quarantined because its node has a successor",
    QuarantinedLineage = "a backup is quarantined because it does not continue the newest",
    QuarantinedLoss = "a backup is quarantined because it lost most of its rows",
    RetentionDeleted = "retention deletes old backups",
    BreakerTripped = "the breaker trips",
    BreakerTrippedAgain = "the breaker trips again after a trial",
    BreakerHalfOpened = "the breaker half-opens",
    BreakerClosed = "the breaker closes because an instance enters service",
    Accepted = "an operator accepts a quarantined backup",
}

/// The situations that were reached, and the promises that were broken.
#[derive(Debug, Default)]
pub struct Reached {
    situations: AtomicU64,
    broken: AtomicU64,
}

impl Reached {
    /// Notes a situation.
    pub(in crate::model) fn note(&self, situation: Situation) {
        self.situations
            .fetch_or(1 << situation as u64, Ordering::Relaxed);
    }

    /// Returns whether a situation was reached.
    pub fn has(&self, situation: Situation) -> bool {
        self.situations.load(Ordering::Relaxed) & (1 << situation as u64) != 0
    }

    /// Returns whether a promise is broken for the first time, and notes that it is broken.
    pub(in crate::model) fn is_first_to_break(&self, promise: Promise) -> bool {
        let bit = 1 << promise as u64;
        self.broken.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}
