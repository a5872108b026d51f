//! The status of an SSM command: one type for SSM's `Status` and its more exact `StatusDetails`.

use std::fmt;

use crate::kind::Kind;

/// Defines the statuses in one table. Their names are SSM's `StatusDetails` without spaces.
macro_rules! statuses {
    ($($(#[$doc:meta])* $variant:ident,)*) => {
        /// The status of a command, as a whole or on one instance.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum InvocationStatus {
            $($(#[$doc])* $variant,)*
            /// A status that AWS has added since. It counts as not finished.
            Unknown(String),
        }

        impl InvocationStatus {
            /// Returns SSM's name of the status, without spaces.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => stringify!($variant),)*
                    Self::Unknown(word) => word,
                }
            }
        }

        impl From<&str> for InvocationStatus {
            fn from(word: &str) -> Self {
                match word.replace(' ', "").as_str() {
                    $(stringify!($variant) => Self::$variant,)*
                    _ => Self::Unknown(word.to_owned()),
                }
            }
        }
    };
}

statuses! {
    /// SSM has not delivered it yet.
    Pending,
    /// SSM could not deliver it yet, and tries again.
    Delayed,
    /// The instance runs it. If the SSM agent dies, the status stays until the command's timeouts have passed.
    InProgress,
    /// SSM is cancelling it.
    Cancelling,
    /// It ended with exit code 0.
    Success,
    /// It ended with another exit code.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// A timeout passed; SSM does not return which.
    TimedOut,
    /// The SSM agent did not accept it in time, or died while it ran.
    DeliveryTimedOut,
    /// It ran longer than its execution timeout.
    ExecutionTimedOut,
    /// The instance does not exist or does not answer.
    Undeliverable,
    /// SSM stopped it because it failed on too many other instances.
    Terminated,
    /// The document is not for this platform.
    InvalidPlatform,
    /// The caller may not command this instance.
    AccessDenied,
}

impl InvocationStatus {
    /// Returns the status from SSM's two fields. The details are more exact; an unknown detail falls back to the plain
    /// status.
    pub(super) fn read(status: Option<&str>, details: Option<&str>) -> Self {
        match (details.map(Self::from), status.map(Self::from)) {
            (Some(Self::Unknown(_)) | None, Some(status)) => status,
            (Some(details), _) => details,
            (None, None) => Self::Unknown(String::new()),
        }
    }

    /// Returns whether the status is final.
    pub fn is_finished(&self) -> bool {
        !matches!(
            self,
            Self::Pending | Self::Delayed | Self::InProgress | Self::Cancelling | Self::Unknown(_)
        )
    }

    /// Returns whether the command succeeded.
    pub fn is_success(&self) -> bool {
        *self == Self::Success
    }

    /// Returns how a finished command ended that has no report.
    pub fn end(&self) -> CommandEnd {
        match self {
            Self::TimedOut | Self::DeliveryTimedOut | Self::ExecutionTimedOut => {
                CommandEnd::TimedOut
            }
            Self::Cancelled | Self::Terminated => CommandEnd::Cancelled,
            Self::Undeliverable | Self::InvalidPlatform | Self::AccessDenied => {
                CommandEnd::Undeliverable
            }
            _ => CommandEnd::Failed,
        }
    }

    /// Returns whether the SSM agent has not accepted the command yet.
    pub fn is_undelivered(&self) -> bool {
        matches!(self, Self::Pending | Self::Delayed)
    }
}

/// How a command without a report ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandEnd {
    /// A timeout of its delivery or its execution passed, or the agent was killed.
    TimedOut,
    /// It was cancelled.
    Cancelled,
    /// SSM could not deliver it to the instance, or was not allowed to.
    Undeliverable,
    /// It ended with an exit code that the agent does not use.
    Failed,
}

impl CommandEnd {
    /// Returns the kind of failure.
    pub fn kind(self) -> Kind {
        match self {
            Self::TimedOut => Kind::CommandTimedOut,
            Self::Cancelled => Kind::CommandCancelled,
            Self::Undeliverable => Kind::CommandUndeliverable,
            Self::Failed => Kind::CommandFailed,
        }
    }
}

impl fmt::Display for InvocationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_details_decide_and_spaces_are_ignored() {
        let read = |status, details| InvocationStatus::read(Some(status), details);
        assert_eq!(
            read("TimedOut", Some("DeliveryTimedOut")),
            InvocationStatus::DeliveryTimedOut
        );
        assert_eq!(
            read("TimedOut", Some("Delivery Timed Out")),
            InvocationStatus::DeliveryTimedOut
        );
        assert_eq!(
            read("InProgress", Some("In Progress")),
            InvocationStatus::InProgress
        );
        assert_eq!(
            read("Failed", Some("SomethingNew")),
            InvocationStatus::Failed
        );
        assert_eq!(read("Success", None), InvocationStatus::Success);
        assert_eq!(
            InvocationStatus::read(None, None),
            InvocationStatus::Unknown(String::new())
        );
    }

    #[test]
    fn only_a_final_status_counts_as_finished() {
        for word in [
            "Pending",
            "Delayed",
            "InProgress",
            "Cancelling",
            "SomethingNew",
        ] {
            assert!(!InvocationStatus::from(word).is_finished(), "{word}");
        }
        for word in [
            "Success",
            "Failed",
            "Cancelled",
            "TimedOut",
            "Undeliverable",
            "Terminated",
            "AccessDenied",
        ] {
            assert!(InvocationStatus::from(word).is_finished(), "{word}");
        }
    }
}
