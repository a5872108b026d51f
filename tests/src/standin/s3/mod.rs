//! A stand-in for Amazon S3 in one directory, with the operations that backups need.
//!
//! It behaves as S3 does in checksums, conditional writes, multipart uploads and their errors. It stores one version of
//! each object: versions have ids, but replaced and deleted versions are gone, and a deletion leaves no delete marker. It
//! has no lifecycle rules, no tags and no object lock.
//!
//! A test injects faults with [`S3::on_request`] and [`S3Fault`], denies requests with [`S3::deny`], and damages objects
//! at rest with [`S3::truncate`], [`S3::flip`] and [`S3::swap`].

mod call;
mod checksums;
mod damage;
mod listing;
mod multipart;
mod objects;
mod permissions;
mod service;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context as _, Result, anyhow};
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode};
use s3s::service::{S3Service, S3ServiceBuilder};

use crate::lock::lock;
pub use call::{Call, S3Fault};
use call::{broken_response, error_response, with_wrong_etag};
pub use permissions::Permissions;
use service::{OneSecret, Service, SignedOnly};
use store::Store;

/// An access key without restrictions. Every other key is also unrestricted until [`S3::restrict`] is called for it.
pub const ACCESS_KEY: &str = "AKIASTANDIN";
/// The secret key of all access keys.
pub const SECRET_KEY: &str = "stand-in";

type Hook = Arc<dyn Fn(&Call) -> Option<S3Fault> + Send + Sync>;

/// The stand-in. Clones use the same directory.
#[derive(Clone)]
pub struct S3 {
    store: Arc<Store>,
    service: S3Service,
    control: Arc<Mutex<Control>>,
}

/// The faults and restrictions that a test has set, and the counters.
#[derive(Default)]
struct Control {
    no_overwrite: BTreeSet<String>,
    denied: Vec<Denial>,
    permissions: BTreeMap<String, Permissions>,
    hook: Option<Hook>,
    counts: BTreeMap<String, u64>,
}

impl Control {
    fn permissions_of(&self, call: &Call) -> Option<&Permissions> {
        self.permissions.get(call.access_key.as_deref()?)
    }
}

struct Denial {
    operation: String,
    bucket: String,
    prefix: String,
}

impl Denial {
    fn covers(&self, call: &Call) -> bool {
        let operation = self.operation == "*" || self.operation == call.operation;
        operation && self.bucket == call.bucket && call.key.starts_with(&self.prefix)
    }
}

impl S3 {
    /// Serves the buckets in a directory. The directory is created if it is missing.
    pub fn new(root: &Path) -> Result<Self> {
        let store = Store::new(root).with_context(|| format!("prepare {}", root.display()))?;
        let files = s3s_fs::FileSystem::new(root)
            .map_err(|error| anyhow!("open {}: {error:?}", root.display()))?;
        let store = Arc::new(store);
        let control = Arc::<Mutex<Control>>::default();
        let mut builder = S3ServiceBuilder::new(Service {
            store: Arc::clone(&store),
            files,
            control: Arc::clone(&control),
        });
        builder.set_auth(OneSecret);
        builder.set_access(SignedOnly);
        Ok(Self {
            store,
            service: builder.build(),
            control,
        })
    }

    /// Answers one path-style request.
    pub async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let call = Call::of(&request);
        let mut response = self.answer(&call, request).await;
        let id = uuid::Uuid::new_v4().simple().to_string();
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-amz-request-id", id);
        }
        response
    }

    async fn answer(&self, call: &Call, request: Request<Body>) -> Response<Body> {
        match self.fault_for(call) {
            None => {
                let response = self.serve(request).await;
                self.hide_absence(call, response)
            }
            Some(S3Fault::Error(status, code)) => {
                error_response(status, &code, "injected by the test")
            }
            Some(S3Fault::OkWithError(code)) => {
                error_response(StatusCode::OK, &code, "injected by the test")
            }
            Some(S3Fault::Stall(duration)) => {
                tokio::time::sleep(duration).await;
                self.serve(request).await
            }
            Some(S3Fault::Reset) => broken_response(),
            Some(S3Fault::WrongETag) => with_wrong_etag(self.serve(request).await).await,
            Some(S3Fault::LoseReply) => {
                let response = self.serve(request).await;
                tracing::debug!(status = %response.status(), "the answer is dropped: injected by the test");
                broken_response()
            }
        }
    }

    /// Counts the request. Returns the error that a policy answers it with, or else the fault that a test injects, or
    /// `None`.
    fn fault_for(&self, call: &Call) -> Option<S3Fault> {
        if call.is_skewed(crate::standin::clock::now()) {
            let code = "RequestTimeTooSkewed".to_owned();
            return Some(S3Fault::Error(StatusCode::FORBIDDEN, code));
        }
        let hook = {
            let mut control = self.control();
            *control.counts.entry(call.operation.clone()).or_default() += 1;
            let overwrites = control.no_overwrite.contains(&call.bucket) && call.may_overwrite();
            let denied = control.denied.iter().any(|denial| denial.covers(call));
            // S3 reports a missing bucket to everybody.
            let permitted = !self.has_bucket(&call.bucket)
                || control
                    .permissions_of(call)
                    .is_none_or(|permissions| permissions.allow(call));
            if overwrites || denied || !permitted {
                return Some(S3Fault::Error(
                    StatusCode::FORBIDDEN,
                    "AccessDenied".to_owned(),
                ));
            }
            control.hook.clone()
        };
        // Called without the lock, because the hook may call the stand-in.
        hook.and_then(|hook| hook(call))
    }

    /// Turns `NotFound` into `AccessDenied` for callers without the permission to list the bucket, as S3 does. AWS does not
    /// document what happens for a missing version.
    fn hide_absence(&self, call: &Call, response: Response<Body>) -> Response<Body> {
        let reads = ["GetObject", "HeadObject"].contains(&call.operation.as_str());
        let exists = matches!(self.store.record(&call.bucket, &call.key), Ok(Some(_)));
        let absent = response.status() == StatusCode::NOT_FOUND && !exists;
        if !reads || !absent || !self.has_bucket(&call.bucket) {
            return response;
        }
        let control = self.control();
        match control.permissions_of(call) {
            Some(permissions) if !permissions.allow_absence(&call.bucket) => {
                error_response(StatusCode::FORBIDDEN, "AccessDenied", "Access Denied")
            }
            _ => response,
        }
    }

    fn has_bucket(&self, bucket: &str) -> bool {
        self.store.root().join(bucket).is_dir()
    }

    async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let request = request.map(s3s::Body::http_body_unsync);
        match self.service.call(request).await {
            Ok(response) => response.map(Body::new),
            Err(error) => {
                let message = format!("{error:?}").replace('<', "(");
                error_response(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &message)
            }
        }
    }

    /// Creates a bucket. Succeeds if it exists already.
    pub fn create_bucket(&self, bucket: &str) -> Result<()> {
        let path = self.store.root().join(bucket);
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))
    }

    /// Denies writes without `If-None-Match: *` in this bucket, as the template's bucket policy does.
    pub fn deny_overwrite(&self, bucket: &str) {
        self.control().no_overwrite.insert(bucket.to_owned());
    }

    /// Denies an operation below a prefix of keys. The operation `*` means all operations.
    pub fn deny(&self, operation: &str, bucket: &str, prefix: &str) {
        self.control().denied.push(Denial {
            operation: operation.to_owned(),
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        });
    }

    /// Restricts requests that this access key signs to the permissions of a role.
    pub fn restrict(&self, access_key: &str, permissions: Permissions) {
        let known = &mut self.control().permissions;
        known.insert(access_key.to_owned(), permissions);
    }

    /// Removes all denials by [`Self::deny`].
    pub fn allow_all(&self) {
        self.control().denied.clear();
    }

    /// Calls this hook before each permitted request. If it returns a fault, the fault replaces the answer.
    ///
    /// There is one hook: a new one replaces the old one.
    pub fn on_request(&self, hook: impl Fn(&Call) -> Option<S3Fault> + Send + Sync + 'static) {
        self.control().hook = Some(Arc::new(hook));
    }

    /// Removes the hook, so that requests are answered normally.
    pub fn clear_hook(&self) {
        self.control().hook = None;
    }

    /// Returns the number of requests by operation, refused ones included.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.control().counts.clone()
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        lock(&self.control)
    }
}
