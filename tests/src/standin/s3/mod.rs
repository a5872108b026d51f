//! A stand-in for Amazon S3: one process, one directory, and only what backups need of it.
//!
//! It is a test double. Of each object one version is stored: versions have ids, but replaced and deleted ones are
//! gone, and a delete leaves no marker. There is no lifecycle, no tagging and no object lock. What it does, it does
//! as S3 does: checksums, conditional writes, multipart uploads, and the errors of all these.

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

/// The access key of somebody who may do everything; so may whoever signs with one that nobody has restricted.
pub const ACCESS_KEY: &str = "AKIASTANDIN";
/// The one secret key.
pub const SECRET_KEY: &str = "stand-in";

type Hook = Arc<dyn Fn(&Call) -> Option<S3Fault> + Send + Sync>;

/// The stand-in. Clones serve the same directory.
#[derive(Clone)]
pub struct S3 {
    store: Arc<Store>,
    service: S3Service,
    control: Arc<Mutex<Control>>,
}

/// What a test has asked for.
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
    /// Serves the buckets in a directory, which is created where there is none.
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

    /// Serves one path-style request.
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
        match self.decide(call) {
            None => {
                let response = self.serve(request).await;
                self.hide_absence(call, response)
            }
            Some(S3Fault::Error(status, code)) => {
                error_response(status, &code, "as the test asked for")
            }
            Some(S3Fault::OkWithError(code)) => {
                error_response(StatusCode::OK, &code, "as the test asked for")
            }
            Some(S3Fault::Stall(duration)) => {
                tokio::time::sleep(duration).await;
                self.serve(request).await
            }
            Some(S3Fault::Reset) => broken_response(),
            Some(S3Fault::WrongETag) => with_wrong_etag(self.serve(request).await).await,
            Some(S3Fault::LoseReply) => {
                let response = self.serve(request).await;
                tracing::debug!(status = %response.status(), "the answer is lost, as the test asked for");
                broken_response()
            }
        }
    }

    /// Counts the request, and applies policies, then faults.
    fn decide(&self, call: &Call) -> Option<S3Fault> {
        if call.is_skewed(crate::standin::clock::now()) {
            let code = "RequestTimeTooSkewed".to_owned();
            return Some(S3Fault::Error(StatusCode::FORBIDDEN, code));
        }
        let hook = {
            let mut control = self.control();
            *control.counts.entry(call.operation.clone()).or_default() += 1;
            let overwrites = control.no_overwrite.contains(&call.bucket) && call.may_overwrite();
            let denied = control.denied.iter().any(|denial| denial.covers(call));
            // Of a bucket that is not there, S3 says so to everybody.
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
        // Called without the lock, since it may well ask this stand-in for something.
        hook.and_then(|hook| hook(call))
    }

    /// Denies whoever may not list to learn that an object is not there. Of a version that is not there AWS documents
    /// nothing.
    fn hide_absence(&self, call: &Call, response: Response<Body>) -> Response<Body> {
        let reads = ["GetObject", "HeadObject"].contains(&call.operation.as_str());
        let exists = matches!(self.store.record(&call.bucket, &call.key), Ok(Some(_)));
        let absent = response.status() == StatusCode::NOT_FOUND && !exists;
        if !reads || !absent || !self.has_bucket(&call.bucket) {
            return response;
        }
        let control = self.control();
        match control.permissions_of(call) {
            Some(permissions) if !permissions.tell_of_absence(&call.bucket) => {
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

    /// Creates a bucket; fine where it exists.
    pub fn create_bucket(&self, bucket: &str) -> Result<()> {
        let path = self.store.root().join(bucket);
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))
    }

    /// Refuses from now on to create objects in this bucket without `If-None-Match: *`, as a bucket policy would.
    pub fn deny_overwrite(&self, bucket: &str) {
        self.control().no_overwrite.insert(bucket.to_owned());
    }

    /// Refuses an operation, or all of them where it is `*`, below a prefix of keys.
    pub fn deny(&self, operation: &str, bucket: &str, prefix: &str) {
        self.control().denied.push(Denial {
            operation: operation.to_owned(),
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        });
    }

    /// Restricts whoever signs with this access key to what a role may do.
    pub fn restrict(&self, access_key: &str, permissions: Permissions) {
        let known = &mut self.control().permissions;
        known.insert(access_key.to_owned(), permissions);
    }

    /// Takes back every [`Self::deny`].
    pub fn allow_all(&self) {
        self.control().denied.clear();
    }

    /// Asks this hook before each request, whether something else should happen.
    pub fn on_request(&self, hook: impl Fn(&Call) -> Option<S3Fault> + Send + Sync + 'static) {
        self.control().hook = Some(Arc::new(hook));
    }

    /// Lets every request be served again.
    pub fn clear_hook(&self) {
        self.control().hook = None;
    }

    /// Returns how many requests there were of each operation, refused ones included.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.control().counts.clone()
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        lock(&self.control)
    }
}
