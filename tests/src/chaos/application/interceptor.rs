//! Intercepts every request to the stand-in, and lets a run replace its answer.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::fixtures::protected_groups::ProtectedGroups;
use crate::lock::lock;
use crate::standin::fault;
use crate::standin::fault::ApiCall;
use crate::standin::s3;
use crate::standin::s3::Call;

/// A caller of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// The agent on a node, or the document that downloads it.
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

/// One kind of request: the caller, the operation and the kind of object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// The caller.
    pub caller: Caller,
    /// The operation's name in AWS.
    pub operation: String,
    /// The kind of S3 object; empty for other services, and for several objects at once.
    pub object: String,
    /// Whether the request goes to S3.
    pub storage: bool,
}

/// A fault that replaces a request's answer.
#[derive(Debug, Clone)]
pub enum Injection {
    /// A fault of S3.
    S3(s3::S3Fault),
    /// An error of another service.
    Api(fault::ApiError),
}

type Rule = Box<dyn FnMut(&Request) -> Option<Injection> + Send>;

/// The interceptor. Clones share it.
#[derive(Clone, Default)]
pub struct Interceptor(Arc<Inner>);

#[derive(Default)]
struct Inner {
    rule: Mutex<Option<Rule>>,
    requests: Mutex<BTreeSet<Request>>,
    unexpected_services: Mutex<BTreeSet<String>>,
}

impl Interceptor {
    /// Intercepts every request to a stand-in.
    pub fn on(protected: &ProtectedGroups) -> Self {
        let interceptor = Self::default();
        let (objects, calls) = (interceptor.clone(), interceptor.clone());
        protected.standin.s3().on_request(move |call| {
            let request = s3_request(call)?;
            match objects.intercept(&request)? {
                Injection::S3(fault) => Some(fault),
                Injection::Api(_) => None,
            }
        });
        protected.standin.faults().on_call(move |call| {
            calls.note_service(call);
            let caller = caller(&call.access_key)?;
            let request = Request {
                caller,
                operation: call.operation.clone(),
                object: String::new(),
                storage: false,
            };
            match calls.intercept(&request)? {
                Injection::Api(fault) => Some(fault),
                Injection::S3(_) => None,
            }
        });
        interceptor
    }

    /// Lets this rule decide about every request from now on.
    pub fn rule(&self, rule: impl FnMut(&Request) -> Option<Injection> + Send + 'static) {
        *lock(&self.0.rule) = Some(Box::new(rule));
    }

    /// Lets every request be answered normally from now on.
    pub fn clear(&self) {
        *lock(&self.0.rule) = None;
    }

    /// Returns every kind of request so far.
    pub fn requests(&self) -> BTreeSet<Request> {
        lock(&self.0.requests).clone()
    }

    /// Returns the calls to services that recovery must not need.
    pub fn unexpected_services(&self) -> BTreeSet<String> {
        lock(&self.0.unexpected_services).clone()
    }

    fn intercept(&self, request: &Request) -> Option<Injection> {
        lock(&self.0.requests).insert(request.clone());
        // One request at a time, because rules count requests.
        let mut rule = lock(&self.0.rule);
        rule.as_mut().and_then(|rule| rule(request))
    }

    fn note_service(&self, call: &ApiCall) {
        if !["autoscaling", "ssm"].contains(&call.service.as_str()) {
            let operation = format!("{}:{}", call.service, call.operation);
            lock(&self.0.unexpected_services).insert(operation);
        }
    }
}

fn s3_request(call: &Call) -> Option<Request> {
    Some(Request {
        caller: caller(call.access_key.as_deref()?)?,
        operation: call.operation.clone(),
        object: object(&call.key),
        storage: true,
    })
}

/// Returns the caller by the access key that the stand-in gave it, or `None` if a test itself is the caller.
fn caller(access_key: &str) -> Option<Caller> {
    match access_key {
        "BackupFunction" => Some(Caller::Backup),
        "RestoreFunction" => Some(Caller::Restore),
        node if node.starts_with("NODE-") => Some(Caller::Agent),
        _ => None,
    }
}

/// Returns the kind of object of a key or of a listed prefix.
pub fn object(key: &str) -> String {
    let prefix = key.split('/').next().unwrap_or_default();
    match (prefix, key.rsplit('/').next().unwrap_or_default()) {
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
        (prefix, _) => prefix.to_owned(),
    }
}
