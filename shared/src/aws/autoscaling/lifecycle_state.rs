//! The lifecycle state of an instance in its Auto Scaling group.

use std::fmt;

/// Defines the lifecycle states in one table of variants and AWS' names.
macro_rules! lifecycle_states {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)*) => {
        /// The lifecycle state of a member of a group.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum LifecycleState {
            $($(#[$doc])* $variant,)*
            /// A state that AWS has added since.
            Unknown(String),
        }

        impl LifecycleState {
            /// Every known state.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns AWS' name of the state.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)*
                    Self::Unknown(word) => word,
                }
            }
        }

        impl From<&str> for LifecycleState {
            fn from(word: &str) -> Self {
                match word {
                    $($word => Self::$variant,)*
                    other => Self::Unknown(other.to_owned()),
                }
            }
        }
    };
}

lifecycle_states! {
    /// Launched, before its hooks.
    Pending = "Pending",
    /// In a launch hook.
    PendingWait = "Pending:Wait",
    /// Past its launch hooks.
    PendingProceed = "Pending:Proceed",
    /// In service.
    InService = "InService",
    /// Draining, before its terminate hooks.
    Terminating = "Terminating",
    /// In a terminate hook.
    TerminatingWait = "Terminating:Wait",
    /// Past its terminate hooks.
    TerminatingProceed = "Terminating:Proceed",
    /// Kept for an operator because a terminate hook was abandoned.
    TerminatingRetained = "Terminating:Retained",
    /// Terminated.
    Terminated = "Terminated",
    /// Leaving the group without termination.
    Detaching = "Detaching",
    /// Out of the group, not terminated.
    Detached = "Detached",
    /// Leaving service for standby.
    EnteringStandby = "EnteringStandby",
    /// In the group, but not in service.
    Standby = "Standby",
    /// Before the terminate hooks of a root volume's replacement.
    ReplacingRootVolume = "ReplacingRootVolume",
    /// In a terminate hook of a root volume's replacement.
    ReplacingRootVolumeWait = "ReplacingRootVolume:Wait",
    /// Past the terminate hooks of a root volume's replacement.
    ReplacingRootVolumeProceed = "ReplacingRootVolume:Proceed",
    /// Has its new root volume, before its launch hooks.
    RootVolumeReplaced = "RootVolumeReplaced",
    /// Entering the warm pool.
    WarmedPending = "Warmed:Pending",
    /// In a launch hook before the warm pool.
    WarmedPendingWait = "Warmed:Pending:Wait",
    /// Past its launch hooks before the warm pool.
    WarmedPendingProceed = "Warmed:Pending:Proceed",
    /// Kept for an operator before the warm pool.
    WarmedPendingRetained = "Warmed:Pending:Retained",
    /// Leaving the warm pool for termination.
    WarmedTerminating = "Warmed:Terminating",
    /// In a terminate hook after the warm pool.
    WarmedTerminatingWait = "Warmed:Terminating:Wait",
    /// Past its terminate hooks after the warm pool.
    WarmedTerminatingProceed = "Warmed:Terminating:Proceed",
    /// Kept for an operator after the warm pool.
    WarmedTerminatingRetained = "Warmed:Terminating:Retained",
    /// Terminated after the warm pool.
    WarmedTerminated = "Warmed:Terminated",
    /// Stopped in the warm pool.
    WarmedStopped = "Warmed:Stopped",
    /// Running in the warm pool.
    WarmedRunning = "Warmed:Running",
    /// Hibernated in the warm pool.
    WarmedHibernated = "Warmed:Hibernated",
    /// Listed in AWS' documentation, but not used.
    Quarantined = "Quarantined",
}

impl LifecycleState {
    /// Returns whether the final backup of such a member may still come. The terminate hook of a retained instance has
    /// ended.
    pub fn is_terminating(&self) -> bool {
        matches!(
            self,
            Self::Terminating | Self::TerminatingWait | Self::TerminatingProceed
        )
    }

    /// Returns whether such a member waits in a launch hook, before it enters service or the warm pool.
    pub fn is_in_launch_hook(&self) -> bool {
        matches!(self, Self::PendingWait | Self::WarmedPendingWait)
    }

    /// Returns whether such a member waits in a terminate hook.
    pub fn is_in_terminate_hook(&self) -> bool {
        matches!(
            self,
            Self::TerminatingWait | Self::ReplacingRootVolumeWait | Self::WarmedTerminatingWait
        )
    }
}

impl fmt::Display for LifecycleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
