//! What lives as long as a function's process: clients, settings, and a memory that only saves calls.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use crate::aws::Aws;
use crate::aws::manifests::Manifests;
use crate::env::Config;
use crate::id::{ApplicationName, CommandId, InstanceId};

/// A function's process. Every step takes it as its first argument.
#[derive(Debug)]
pub struct Context {
    /// The AWS clients.
    pub aws: Aws,
    /// The settings.
    pub config: Config,
    /// Commands whose end was handled. A process that does not remember one comes to the same result by more calls.
    pub handled_commands: Memory<(CommandId, InstanceId)>,
    /// Applications whose state parameter exists. Every commit checks again; this saves ticks their calls.
    pub applications_with_state: Memory<ApplicationName>,
}

impl Context {
    /// Starts with an empty memory.
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

/// A set of facts that this process has seen.
#[derive(Debug)]
pub struct Memory<T>(Mutex<HashSet<T>>);

/// The commands of ten ticks for a thousand nodes; a full memory starts again empty.
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
