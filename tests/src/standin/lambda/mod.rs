//! A stand-in for AWS Lambda: it runs the real `bootstrap` binaries and speaks the Lambda Runtime API to them.
//!
//! Synchronous invocations return the result; asynchronous ones are retried as Lambda does. Everything runs in the
//! processes of this machine, and all of them are killed when the last clone of [`Lambda`] is dropped.

mod asynchronous;
mod environment;
mod logs;
mod routes;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use environment::Environment;
use logs::Logs;

use crate::http;
use crate::lock::lock;

pub use logs::{LogLine, MetricLine, OutputLine};

/// One function to run.
#[derive(Debug, Clone)]
pub struct Function {
    /// The name that it is invoked by.
    pub name: String,
    /// The real `bootstrap`.
    pub binary: PathBuf,
    /// Its variables, besides those that Lambda sets itself and over which these win: `AWS_ENDPOINT_URL` belongs here.
    pub environment: BTreeMap<String, String>,
    /// How long one invocation may take; never scaled.
    pub timeout: Duration,
    /// Only told to the function; not enforced.
    pub memory_mb: u32,
    /// How many processes there may be at once.
    pub concurrency: usize,
    /// How often a failed asynchronous invocation is tried again.
    pub retries: u32,
    /// How old an asynchronous event may become, in AWS' time.
    pub max_event_age: Duration,
}

/// What holds for all functions.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The AWS region.
    pub region: String,
    /// By how much Lambda's own waits (between asynchronous attempts, and an event's age) are shortened.
    pub time_scale: f64,
    /// The file to which every line of every function is appended as well.
    pub echo: Option<PathBuf>,
    /// `AWS_LAMBDA_LOG_LEVEL`, such as `INFO`.
    pub log_level: String,
    /// The port of the endpoint on 127.0.0.1; 0 for any that is free.
    pub port: u16,
}

/// Why an invocation failed, as the function or Lambda itself says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionError {
    /// A stable word.
    pub error_type: String,
    /// What went wrong.
    pub message: String,
}

impl std::fmt::Display for FunctionError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.error_type, self.message)
    }
}

impl std::error::Error for FunctionError {}

/// An asynchronous event that was given up.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The function's name.
    pub function: String,
    /// The event.
    pub payload: Value,
    /// The last attempt's error.
    pub error: FunctionError,
    /// How often it was tried.
    pub attempts: u32,
}

/// The stand-in. Cheap to clone.
#[derive(Clone)]
pub struct Lambda {
    inner: Arc<Inner>,
    _life: Arc<Life>,
}

struct Inner {
    settings: Settings,
    address: SocketAddr,
    functions: BTreeMap<String, Hosted>,
    /// Every process, by the id under which it speaks to the Runtime API.
    environments: Mutex<HashMap<String, Arc<Environment>>>,
    logs: Logs,
    dead_letters: Mutex<Vec<DeadLetter>>,
    cold_starts: Mutex<Vec<(String, Duration)>>,
    duplicates: AtomicU32,
    pending: AtomicUsize,
    closed: AtomicBool,
}

struct Hosted {
    function: Function,
    slots: Semaphore,
    idle: Mutex<Vec<Arc<Environment>>>,
}

/// Ends the server and every process when the last clone goes, whatever still runs in the background.
struct Life {
    inner: Arc<Inner>,
    server: AbortHandle,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.server.abort();
        self.inner.shut_down();
    }
}

impl Lambda {
    /// Starts to serve. A function's process is spawned at its first invocation.
    pub async fn start(settings: Settings, functions: Vec<Function>) -> Result<Self> {
        let mut hosted = BTreeMap::new();
        for function in functions {
            let binary = &function.binary;
            ensure!(
                binary.is_file(),
                "{}: there is no binary {}",
                function.name,
                binary.display()
            );
            let entry = Hosted {
                slots: Semaphore::new(function.concurrency),
                idle: Mutex::default(),
                function: function.clone(),
            };
            hosted.insert(function.name, entry);
        }
        let listener = TcpListener::bind(("127.0.0.1", settings.port)).await;
        let listener = listener.with_context(|| format!("listen on port {}", settings.port))?;
        let inner = Arc::new(Inner {
            address: listener.local_addr()?,
            logs: Logs::new(settings.echo.as_deref())?,
            settings,
            functions: hosted,
            environments: Mutex::default(),
            dead_letters: Mutex::default(),
            cold_starts: Mutex::default(),
            duplicates: AtomicU32::new(0),
            pending: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        });
        let routes = routes::routes(Arc::clone(&inner));
        let server = tokio::spawn(http::serve("the Lambda endpoint", listener, routes));
        let life = Life {
            inner: Arc::clone(&inner),
            server: server.abort_handle(),
        };
        Ok(Self {
            inner,
            _life: Arc::new(life),
        })
    }

    /// Invokes a function and waits for its result.
    pub async fn invoke(&self, function: &str, payload: Value) -> Result<Value, FunctionError> {
        Arc::clone(&self.inner)
            .invoke(function, payload, request_id())
            .await
    }

    /// Hands an event over as EventBridge does: it is retried up to the function's limits, in the background.
    pub fn invoke_async(&self, function: &str, payload: Value) {
        asynchronous::accept(&self.inner, function, payload);
    }

    /// Delivers each of the next asynchronous events twice, which Lambda may do at any time.
    pub fn duplicate_next(&self, count: u32) {
        self.inner.duplicates.fetch_add(count, Ordering::SeqCst);
    }

    /// Returns how many asynchronous events are running or wait for another attempt.
    pub fn pending(&self) -> usize {
        self.inner.pending.load(Ordering::SeqCst)
    }

    /// Returns every line that any function has written.
    pub fn logs(&self) -> Vec<OutputLine> {
        self.inner.logs.lines()
    }

    /// Returns the asynchronous events that were given up.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        lock(&self.inner.dead_letters).clone()
    }

    /// Returns how long each process took from its start to its first question for an event, by function.
    pub fn cold_starts(&self) -> Vec<(String, Duration)> {
        lock(&self.inner.cold_starts).clone()
    }

    /// Returns the process ids of a function's running processes.
    pub fn processes(&self, function: &str) -> Vec<u32> {
        let environments = lock(&self.inner.environments);
        let of_function = environments.values().filter(|one| one.function == function);
        of_function
            .filter_map(|environment| environment.process())
            .collect()
    }

    /// Ends whatever a function works on as Lambda does where its time is over, however long it has run.
    pub fn time_out(&self, function: &str) {
        let environments = lock(&self.inner.environments);
        for environment in environments.values() {
            if environment.function == function {
                environment.time_out();
            }
        }
    }

    /// Returns `http://127.0.0.1:<port>`, for `aws lambda invoke --endpoint-url` and `cargo lambda invoke`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.inner.address)
    }
}

impl Inner {
    async fn invoke(
        self: Arc<Self>,
        function: &str,
        payload: Value,
        id: String,
    ) -> Result<Value, FunctionError> {
        let function = function.to_owned();
        // In a task of its own, so that a caller that goes away leaves no process in an unknown state.
        let invocation = tokio::spawn(async move { self.run(&function, payload, &id).await });
        match invocation.await {
            Ok(result) => result,
            Err(error) => Err(environment::failure("StandInFailed", &error.to_string())),
        }
    }

    async fn run(
        self: &Arc<Self>,
        name: &str,
        payload: Value,
        id: &str,
    ) -> Result<Value, FunctionError> {
        let Some(hosted) = self.functions.get(name) else {
            let message = format!("there is no function {name}");
            return Err(environment::failure("ResourceNotFoundException", &message));
        };
        let _slot = hosted.slots.acquire().await;
        let idle = loop {
            match lock(&hosted.idle).pop() {
                Some(environment) if !environment.ended() => break Some(environment),
                Some(_) => {}
                None => break None,
            }
        };
        let environment = match idle {
            Some(environment) => environment,
            None => Environment::spawn(self, &hosted.function)?,
        };
        let result = environment
            .invoke(payload, id, hosted.function.timeout)
            .await;
        if environment.ended() {
            lock(&self.environments).remove(&environment.id);
        } else {
            lock(&hosted.idle).push(environment);
        }
        result
    }

    /// Whether the stand-in is gone, and only what ran in the background still holds on to it.
    fn closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn shut_down(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for (_, environment) in lock(&self.environments).drain() {
            environment.kill();
        }
    }
}

fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
