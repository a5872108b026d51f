//! The state of a function's process: clients, settings, and a memory that only saves calls.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use super::env::Config;
use crate::aws::Aws;
use crate::aws::manifests::Manifests;
use crate::id::{ApplicationName, CommandId, InstanceId};

/// The state of a function's process. Most functions take it as their first argument.
#[derive(Debug)]
pub struct Context {
    /// The AWS clients.
    pub aws: Aws,
    /// The settings.
    pub config: Config,
    /// Finished commands that were handled. A process that does not remember one only makes more calls.
    pub handled_commands: Memory<(CommandId, InstanceId)>,
    /// Applications that have their state parameter. A tick does not check them again; every commit does.
    pub applications_with_state: Memory<ApplicationName>,
}

impl Context {
    /// Returns the state with an empty memory.
    pub fn new(aws: Aws, config: Config) -> Self {
        Self {
            aws,
            config,
            handled_commands: Memory::default(),
            applications_with_state: Memory::default(),
        }
    }

    /// Returns the reader of an application's manifests.
    pub fn manifests<'a>(&'a self, application: &'a ApplicationName) -> Manifests<'a> {
        Manifests {
            client: &self.aws.s3,
            bucket: &self.config.bucket,
            application,
        }
    }
}

/// A set of facts that this process remembers, at most 10,000.
#[derive(Debug)]
pub struct Memory<T>(Mutex<HashSet<T>>);

/// The commands of ten ticks for a thousand nodes. A full memory is emptied.
const MOST_REMEMBERED: usize = 10_000;

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Eq + Hash> Memory<T> {
    /// Remembers a fact.
    pub fn insert(&self, fact: T) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_REMEMBERED {
            known.clear();
        }
        known.insert(fact);
    }

    /// Returns whether a fact is remembered.
    pub fn contains(&self, fact: &T) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(fact)
    }
}
