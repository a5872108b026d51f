//! What lives as long as the process: clients, settings, and which commands need no second look.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use shared::aws::Aws;
use shared::env::Config;
use shared::id::{ApplicationName, CommandId, InstanceId};

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
    /// Applications whose state is written. Every commit looks again; this only saves ticks their calls.
    stated: Mutex<HashSet<ApplicationName>>,
}

/// Ten ticks' commands of a thousand nodes; then what is remembered starts again.
const MOST_REMEMBERED: usize = 10_000;

impl Function {
    /// Starts with nothing settled.
    pub(crate) fn new(aws: Aws, config: Config) -> Self {
        Self {
            aws,
            config,
            settled: Mutex::default(),
            stated: Mutex::default(),
        }
    }

    /// Remembers that a command needs no second look on this instance.
    pub(crate) fn remember(&self, command: &CommandId, instance: &InstanceId) {
        remember(&self.settled, (command.clone(), instance.clone()));
    }

    /// Tells whether a command needs no second look on this instance.
    pub(crate) fn is_settled(&self, command: &CommandId, instance: &InstanceId) -> bool {
        let settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.contains(&(command.clone(), instance.clone()))
    }

    /// Remembers that an application's state is written.
    pub(crate) fn remember_state(&self, application: &ApplicationName) {
        remember(&self.stated, application.clone());
    }

    /// Tells whether an application's state is known to be written.
    pub(crate) fn has_state(&self, application: &ApplicationName) -> bool {
        let stated = self.stated.lock().unwrap_or_else(PoisonError::into_inner);
        stated.contains(application)
    }
}

fn remember<T: Eq + Hash>(known: &Mutex<HashSet<T>>, fact: T) {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= MOST_REMEMBERED {
        known.clear();
    }
    known.insert(fact);
}
