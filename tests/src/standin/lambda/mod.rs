//! A stand-in for AWS Lambda: it runs the real `bootstrap` binaries and implements the Lambda Runtime API for them.
//!
//! Synchronous invocations return the result. Asynchronous ones are retried as in Lambda. The functions are processes on
//! this machine, and they are killed when the last clone of [`Lambda`] is dropped.
//!
//! A test can inject faults: [`Lambda::duplicate_next`] delivers events twice, [`Lambda::time_out`] ends an invocation as
//! Lambda does after the function's timeout, and a test can kill the [`Lambda::processes`] at any point.

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
    /// The function's name.
    pub name: String,
    /// The path of the real `bootstrap`.
    pub binary: PathBuf,
    /// Its environment variables. They override those that Lambda sets itself. `AWS_ENDPOINT_URL` belongs here.
    pub environment: BTreeMap<String, String>,
    /// The timeout of one invocation, in real time.
    pub timeout: Duration,
    /// The function's memory in MB. The function can read it, but it is not enforced.
    pub memory_mb: u32,
    /// The most processes at a time.
    pub concurrency: usize,
    /// The number of retries of a failed asynchronous invocation.
    pub retries: u32,
    /// The largest age of an asynchronous event, in AWS's time.
    pub max_event_age: Duration,
}

/// The settings of all functions.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The AWS region.
    pub region: String,
    /// The factor by which Lambda's own waits are shortened: those between retries, and the age of events.
    pub time_scale: f64,
    /// A file to which the output of all functions is appended as well.
    pub echo: Option<PathBuf>,
    /// `AWS_LAMBDA_LOG_LEVEL`, such as `INFO`.
    pub log_level: String,
}

/// The error of an invocation, from the function or from Lambda itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionError {
    /// The error type, such as `Sandbox.Timedout`.
    pub error_type: String,
    /// The error message.
    pub message: String,
}

impl std::fmt::Display for FunctionError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.error_type, self.message)
    }
}

impl std::error::Error for FunctionError {}

/// An asynchronous event that Lambda stopped delivering.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The function's name.
    pub function: String,
    /// The event.
    pub payload: Value,
    /// The error of the last attempt.
    pub error: FunctionError,
    /// The number of attempts.
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
    /// Every process, by its id in the URLs of the Runtime API.
    environments: Mutex<HashMap<String, Arc<Environment>>>,
    logs: Logs,
    dead_letters: Mutex<Vec<DeadLetter>>,
    cold_starts: Mutex<Vec<(String, Duration)>>,
    duplicates: AtomicU32,
    pending: AtomicUsize,
    closed: AtomicBool,
}

/// A function, and its processes that wait for an event.
struct Hosted {
    function: Function,
    slots: Semaphore,
    idle: Mutex<Vec<Arc<Environment>>>,
}

/// Ends the server and every process when the last clone is dropped, even if background tasks still run.
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
    /// Starts the Runtime API. The first invocation of a function starts its process.
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
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.context("listen on 127.0.0.1 for the Runtime API")?;
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

    /// Accepts an event as from EventBridge. It is delivered in the background and retried up to the function's limits.
    pub fn invoke_async(&self, function: &str, payload: Value) {
        asynchronous::accept(&self.inner, function, payload);
    }

    /// Delivers each of the next `count` asynchronous events twice, as Lambda may do at any time.
    pub fn duplicate_next(&self, count: u32) {
        self.inner.duplicates.fetch_add(count, Ordering::SeqCst);
    }

    /// Returns the number of asynchronous events that are being handled or wait for a retry.
    pub fn pending(&self) -> usize {
        self.inner.pending.load(Ordering::SeqCst)
    }

    /// Returns all output lines of all functions.
    pub fn logs(&self) -> Vec<OutputLine> {
        self.inner.logs.lines()
    }

    /// Returns the asynchronous events that Lambda stopped delivering.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        lock(&self.inner.dead_letters).clone()
    }

    /// Returns the time of each process from its start until it requested its first event, with its function's name.
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

    /// Ends all running invocations of a function now, as Lambda does after the function's timeout.
    pub fn time_out(&self, function: &str) {
        let environments = lock(&self.inner.environments);
        for environment in environments.values() {
            if environment.function == function {
                environment.time_out();
            }
        }
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
        // In a task of its own, so that the process has a known state even if the caller is cancelled.
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

    /// Returns whether the last [`Lambda`] was dropped and only background tasks still use this.
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
