//! Where an SSM command stands: the two vocabularies of SSM brought to one.

use std::fmt;

use crate::failure::Kind;

/// Defines the statuses from one table; the words are SSM's `StatusDetails` without spaces.
macro_rules! statuses {
    ($($(#[$doc:meta])* $variant:ident,)*) => {
        /// Where a command stands, as a whole or on one instance.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum InvocationStatus {
            $($(#[$doc])* $variant,)*
            /// A status that AWS has added since; it counts as not finished.
            Unknown(String),
        }

        impl InvocationStatus {
            /// Returns SSM's word.
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
    /// Not delivered yet.
    Pending,
    /// Could not be delivered yet.
    Delayed,
    /// Running; a dead agent's command stays here until its timeouts have passed.
    InProgress,
    /// Being cancelled.
    Cancelling,
    /// Ended with exit code 0.
    Success,
    /// Ended with another exit code.
    Failed,
    /// Cancelled.
    Cancelled,
    /// Too late, SSM does not say at what.
    TimedOut,
    /// The agent did not take it in time, or died with it.
    DeliveryTimedOut,
    /// It ran too long.
    ExecutionTimedOut,
    /// The instance does not exist or does not answer.
    Undeliverable,
    /// Stopped since too many other instances failed.
    Terminated,
    /// The document is not for this platform.
    InvalidPlatform,
    /// The caller may not command this instance.
    AccessDenied,
}

impl InvocationStatus {
    /// Reads what SSM says twice: the details are more exact, and the plain status has fewer words.
    pub(super) fn read(status: Option<&str>, details: Option<&str>) -> Self {
        match (details.map(Self::from), status.map(Self::from)) {
            (Some(Self::Unknown(_)) | None, Some(status)) => status,
            (Some(details), _) => details,
            (None, None) => Self::Unknown(String::new()),
        }
    }

    /// Tells whether nothing more will come.
    pub fn is_finished(&self) -> bool {
        !matches!(
            self,
            Self::Pending | Self::Delayed | Self::InProgress | Self::Cancelling | Self::Unknown(_)
        )
    }

    /// Tells whether the command ended well.
    pub fn is_success(&self) -> bool {
        *self == Self::Success
    }

    /// Says how a command ended that is over, and of whose end no report tells.
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

    /// Tells whether the instance's agent has not taken the command yet.
    pub fn is_undelivered(&self) -> bool {
        matches!(self, Self::Pending | Self::Delayed)
    }
}

/// How a command ended without a report of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandEnd {
    /// Its time was over, for its delivery or for its execution, or it was killed.
    TimedOut,
    /// Somebody cancelled it.
    Cancelled,
    /// SSM did not get it to the instance, or was not allowed to.
    Undeliverable,
    /// It ended by itself, with an exit code that is not the agent's.
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
    fn the_details_decide_and_spaces_do_not_matter() {
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
    fn a_command_is_finished_when_nothing_more_will_come() {
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
