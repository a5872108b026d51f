//! One execution environment: a process of the real binary, and what the Runtime API needs to know of it.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tokio::process::Command;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{Function, FunctionError, Inner};
use crate::lock::lock;
use crate::standin::s3::{ACCESS_KEY, SECRET_KEY};

/// How long Lambda waits for a new process to ask for its first event.
const INIT_LIMIT: Duration = Duration::from_secs(10);

type Reply = oneshot::Sender<Result<Value, FunctionError>>;

/// One event on its way to the process.
pub(super) struct Job {
    pub(super) id: String,
    pub(super) payload: Value,
    pub(super) deadline: SystemTime,
    pub(super) reply: Reply,
}

pub(super) struct Environment {
    pub(super) id: String,
    pub(super) function: String,
    pub(super) arn: String,
    started: Instant,
    process: Option<u32>,
    jobs: mpsc::Sender<Job>,
    queue: tokio::sync::Mutex<mpsc::Receiver<Job>>,
    /// The request that the process works on, and where its answer goes.
    current: Mutex<Option<(String, Reply)>>,
    init_error: Mutex<Option<FunctionError>>,
    ready: watch::Sender<bool>,
    /// How the process ended, once it has.
    ended: watch::Sender<Option<String>>,
    killed: AtomicBool,
    timed_out: AtomicBool,
    kill: Notify,
}

impl Environment {
    /// Starts a process, with the environment that Lambda gives it.
    pub(super) fn spawn(
        lambda: &Arc<Inner>,
        function: &Function,
    ) -> Result<Arc<Self>, FunctionError> {
        if lambda.closed() {
            return Err(failure("StandInFailed", "the stand-in has ended"));
        }
        let id = uuid::Uuid::new_v4().simple().to_string();
        let settings = &lambda.settings;
        let mut command = Command::new(&function.binary);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "en_US.UTF-8")
            .env("TZ", ":UTC")
            .env(
                "AWS_LAMBDA_RUNTIME_API",
                format!("http://{}/{id}", lambda.address),
            )
            .env("AWS_LAMBDA_FUNCTION_NAME", &function.name)
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env(
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
                function.memory_mb.to_string(),
            )
            .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
            .env(
                "AWS_LAMBDA_LOG_GROUP_NAME",
                format!("/aws/lambda/{}", function.name),
            )
            .env("AWS_LAMBDA_LOG_STREAM_NAME", &id)
            .env("AWS_LAMBDA_LOG_FORMAT", "JSON")
            .env("AWS_LAMBDA_LOG_LEVEL", &settings.log_level)
            .env("AWS_REGION", &settings.region)
            .env("AWS_DEFAULT_REGION", &settings.region)
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_SESSION_TOKEN", "stand-in")
            .env("_HANDLER", "bootstrap")
            .envs(&function.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| {
            failure(
                "Runtime.InvalidEntrypoint",
                &format!("{}: {error}", function.binary.display()),
            )
        })?;
        if let Some(stdout) = child.stdout.take() {
            lambda.logs.follow(&function.name, stdout);
        }
        if let Some(stderr) = child.stderr.take() {
            lambda.logs.follow(&function.name, stderr);
        }
        let (jobs, queue) = mpsc::channel(1);
        let environment = Arc::new(Self {
            arn: format!(
                "arn:aws:lambda:{}:123456789012:function:{}",
                settings.region, function.name
            ),
            function: function.name.clone(),
            id: id.clone(),
            started: Instant::now(),
            process: child.id(),
            jobs,
            queue: tokio::sync::Mutex::new(queue),
            current: Mutex::default(),
            init_error: Mutex::default(),
            ready: watch::Sender::new(false),
            ended: watch::Sender::new(None),
            killed: AtomicBool::new(false),
            timed_out: AtomicBool::new(false),
            kill: Notify::new(),
        });
        lock(&lambda.environments).insert(id, Arc::clone(&environment));
        let supervised = Arc::clone(&environment);
        tokio::spawn(async move {
            tokio::select! {
                () = supervised.kill.notified() => {
                    if let Err(error) = child.start_kill() {
                        tracing::debug!(%error, "the process had ended already");
                    }
                }
                _ = child.wait() => {}
            }
            let status = match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            };
            supervised.ended.send_replace(Some(status));
        });
        Ok(environment)
    }

    /// Gives the process an event and waits for its answer, its end, or the deadline.
    pub(super) async fn invoke(
        &self,
        payload: Value,
        id: &str,
        timeout: Duration,
    ) -> Result<Value, FunctionError> {
        self.initialised().await?;
        let (reply, answer) = oneshot::channel();
        let job = Job {
            id: id.to_owned(),
            payload,
            deadline: SystemTime::now() + timeout,
            reply,
        };
        if self.jobs.send(job).await.is_err() {
            return Err(failure("Runtime.ExitError", "the process takes no events"));
        }
        let mut ended = self.ended.subscribe();
        let result = tokio::select! {
            biased;
            answered = answer => answered.ok(),
            _ = ended.wait_for(Option::is_some) => None,
            () = tokio::time::sleep(timeout) => {
                self.time_out();
                None
            }
        };
        result.unwrap_or_else(|| {
            if self.timed_out.load(Ordering::SeqCst) {
                let message = format!(
                    "RequestId: {id} Error: Task timed out after {:.2} seconds",
                    timeout.as_secs_f64()
                );
                return Err(failure("Sandbox.Timedout", &message));
            }
            let status = self.ended.borrow().clone().unwrap_or_default();
            let message = format!("RequestId: {id} Error: Runtime exited: {status}");
            Err(failure("Runtime.ExitError", &message))
        })
    }

    async fn initialised(&self) -> Result<(), FunctionError> {
        let mut ready = self.ready.subscribe();
        let mut ended = self.ended.subscribe();
        let early = tokio::select! {
            biased;
            _ = ready.wait_for(|ready| *ready) => return Ok(()),
            status = ended.wait_for(Option::is_some) => match status {
                Ok(status) => failure("Runtime.ExitError", &format!("exited during initialisation: {}", status.as_deref().unwrap_or_default())),
                Err(error) => failure("Runtime.ExitError", &error.to_string()),
            },
            () = tokio::time::sleep(INIT_LIMIT) => failure("Sandbox.Timedout", "the initialisation took too long"),
        };
        self.kill();
        // What the process itself said about its start is better than how it ended.
        Err(lock(&self.init_error).take().unwrap_or(early))
    }

    /// Waits for the next event, as the process asks for it; none once there will be no more.
    /// The second value is how long the start took, at the first question.
    pub(super) async fn next(&self) -> (Option<Job>, Option<Duration>) {
        let first = !self.ready.send_replace(true);
        let start = first.then(|| self.started.elapsed());
        (self.queue.lock().await.recv().await, start)
    }

    /// Remembers which request the process works on.
    pub(super) fn working_on(&self, id: String, reply: Reply) {
        *lock(&self.current) = Some((id, reply));
    }

    /// Passes the process' answer on; false where it does not work on this request.
    pub(super) fn answer(&self, id: &str, result: Result<Value, FunctionError>) -> bool {
        let mut current = lock(&self.current);
        let working = current.as_ref().is_some_and(|(known, _)| known == id);
        if !working {
            return false;
        }
        // Nobody may be waiting any more.
        current
            .take()
            .is_some_and(|(_, reply)| reply.send(result).is_ok())
    }

    pub(super) fn failed_to_start(&self, error: FunctionError) {
        *lock(&self.init_error) = Some(error);
    }

    /// Whether the process has ended, or is about to.
    pub(super) fn ended(&self) -> bool {
        self.killed.load(Ordering::SeqCst) || self.ended.borrow().is_some()
    }

    pub(super) fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        self.kill.notify_one();
    }

    /// Ends the process because an invocation's time is over.
    pub(super) fn time_out(&self) {
        self.timed_out.store(true, Ordering::SeqCst);
        self.kill();
    }

    /// Returns the process id; none once it has ended.
    pub(super) fn process(&self) -> Option<u32> {
        self.process.filter(|_| !self.ended())
    }
}

pub(super) fn failure(error_type: &str, message: &str) -> FunctionError {
    FunctionError {
        error_type: error_type.to_owned(),
        message: message.to_owned(),
    }
}
