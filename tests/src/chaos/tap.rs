//! Listens in on every request to the stand-in, and lets a run decide what becomes of it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::fixtures::protected_groups::ProtectedGroups;
use crate::lock::lock;
use crate::standin::fault;
use crate::standin::fault::ApiCall;
use crate::standin::s3;
use crate::standin::s3::Call;

/// Who calls AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// The agent on a node, or what fetches it there.
    Agent,
    /// The backup function.
    Backup,
    /// The restore function.
    Restore,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Agent => "agent",
            Self::Backup => "backup function",
            Self::Restore => "restore function",
        })
    }
}

/// One request, as runs tell them apart: who asks for what of which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Who asks.
    pub caller: Caller,
    /// AWS's name of the operation.
    pub operation: String,
    /// What kind of object of S3; empty for other services, and where many are meant.
    pub object: String,
    /// Whether S3 is asked.
    pub storage: bool,
}

/// What becomes of a request in place of its answer.
#[derive(Debug, Clone)]
pub enum Act {
    /// S3 does this.
    Storage(s3::S3Fault),
    /// Another service answers with this error.
    Refusal(fault::ApiError),
}

type Rule = Box<dyn FnMut(&Seen) -> Option<Act> + Send>;

/// The ear on the wire. Clones share it.
#[derive(Clone, Default)]
pub struct Tap(Arc<Inner>);

#[derive(Default)]
struct Inner {
    rule: Mutex<Option<Rule>>,
    seen: Mutex<BTreeSet<Seen>>,
    strangers: Mutex<BTreeSet<String>>,
}

impl Tap {
    /// Listens to everything that is asked of a stand-in.
    pub fn on(protected: &ProtectedGroups) -> Self {
        let tap = Self::default();
        let (objects, calls) = (tap.clone(), tap.clone());
        protected.standin.s3().on_request(move |call| {
            let seen = of_storage(call)?;
            match objects.hear(&seen)? {
                Act::Storage(fault) => Some(fault),
                Act::Refusal(_) => None,
            }
        });
        protected.standin.faults().on_call(move |call| {
            calls.note_stranger(call);
            let caller = caller(&call.access_key)?;
            let seen = Seen {
                caller,
                operation: call.operation.clone(),
                object: String::new(),
                storage: false,
            };
            match calls.hear(&seen)? {
                Act::Refusal(fault) => Some(fault),
                Act::Storage(_) => None,
            }
        });
        tap
    }

    /// Lets this rule decide about requests from now on.
    pub fn rule(&self, rule: impl FnMut(&Seen) -> Option<Act> + Send + 'static) {
        *lock(&self.0.rule) = Some(Box::new(rule));
    }

    /// Lets every request be answered.
    pub fn clear(&self) {
        *lock(&self.0.rule) = None;
    }

    /// Returns every kind of request so far.
    pub fn seen(&self) -> BTreeSet<Seen> {
        lock(&self.0.seen).clone()
    }

    /// Returns what was asked of services that recovery may not need.
    pub fn strangers(&self) -> BTreeSet<String> {
        lock(&self.0.strangers).clone()
    }

    fn hear(&self, seen: &Seen) -> Option<Act> {
        lock(&self.0.seen).insert(seen.clone());
        // One request at a time: a rule counts.
        let mut rule = lock(&self.0.rule);
        rule.as_mut().and_then(|rule| rule(seen))
    }

    fn note_stranger(&self, call: &ApiCall) {
        if !["autoscaling", "ssm"].contains(&call.service.as_str()) {
            let asked = format!("{}:{}", call.service, call.operation);
            lock(&self.0.strangers).insert(asked);
        }
    }
}

fn of_storage(call: &Call) -> Option<Seen> {
    Some(Seen {
        caller: caller(call.access_key.as_deref()?)?,
        operation: call.operation.clone(),
        object: object(&call.key),
        storage: true,
    })
}

/// Tells callers apart by the keys that the stand-in gives them; none where a test itself asks.
fn caller(access_key: &str) -> Option<Caller> {
    match access_key {
        "BackupFunction" => Some(Caller::Backup),
        "RestoreFunction" => Some(Caller::Restore),
        node if node.starts_with("NODE-") => Some(Caller::Agent),
        _ => None,
    }
}

/// Returns what kind of object has this key, or is listed below this prefix.
pub fn object(key: &str) -> String {
    let state = key.split('/').next().unwrap_or_default();
    match (state, key.rsplit('/').next().unwrap_or_default()) {
        ("backups", "") => "attempts".to_owned(),
        ("backups", "globals.sql.zst") => "globals".to_owned(),
        ("backups", "config.tar.zst") => "configuration".to_owned(),
        ("backups", "contents.json.zst") => "contents".to_owned(),
        ("backups", "index.json") => "index".to_owned(),
        ("backups", dump) => match dump.strip_suffix(".dump.zst") {
            Some(number) => format!("dump {number}"),
            None => "attempts".to_owned(),
        },
        ("manifests", "") => "manifests".to_owned(),
        ("manifests", _) => "manifest".to_owned(),
        (state, _) => state.to_owned(),
    }
}
