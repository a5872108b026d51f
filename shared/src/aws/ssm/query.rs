//! The filter for a list of commands.

use time::OffsetDateTime;

use crate::id::InstanceId;

/// Selects the commands of a document that are listed.
#[derive(Debug, Clone, Copy)]
pub struct CommandQuery<'a> {
    pub(super) document: &'a str,
    pub(super) since: OffsetDateTime,
    pub(super) executing_only: bool,
    pub(super) instance: Option<&'a InstanceId>,
}

impl<'a> CommandQuery<'a> {
    /// Selects the commands of a document that were sent since a time.
    pub fn new(document: &'a str, since: OffsetDateTime) -> Self {
        Self {
            document,
            since,
            executing_only: false,
            instance: None,
        }
    }

    /// Selects only commands that are still executing.
    #[must_use]
    pub fn executing(mut self) -> Self {
        self.executing_only = true;
        self
    }

    /// Selects only commands that were sent to this instance.
    #[must_use]
    pub fn on(mut self, instance: &'a InstanceId) -> Self {
        self.instance = Some(instance);
        self
    }
}
