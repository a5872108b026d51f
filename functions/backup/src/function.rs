//! What lives as long as the process: clients, settings, and which commands need no second look.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use shared::aws::Aws;
use shared::env::Config;
use shared::id::{CommandId, InstanceId};

/// The function's process.
#[derive(Debug)]
pub(crate) struct Function {
    /// The clients.
    pub(crate) aws: Aws,
    /// The settings.
    pub(crate) config: Config,
    /// Commands that were seen through to their end. It only saves calls and repeated log lines: whoever does
    /// not know that a command is settled comes to the same result.
    settled: Mutex<HashSet<(CommandId, InstanceId)>>,
}

impl Function {
    /// Starts with nothing settled.
    pub(crate) fn new(aws: Aws, config: Config) -> Self {
        Self {
            aws,
            config,
            settled: Mutex::default(),
        }
    }

    /// Remembers that a command needs no second look on this instance.
    pub(crate) fn remember(&self, command: &CommandId, instance: &InstanceId) {
        /// More than a day's commands of a large account; then it starts again.
        const MOST: usize = 10_000;
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if settled.len() >= MOST {
            settled.clear();
        }
        settled.insert((command.clone(), instance.clone()));
    }

    /// Tells whether a command needs no second look on this instance.
    pub(crate) fn is_settled(&self, command: &CommandId, instance: &InstanceId) -> bool {
        let settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.contains(&(command.clone(), instance.clone()))
    }
}
