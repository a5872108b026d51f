//! One execution environment: a process of the real binary, and its state in the Runtime API.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{Function, FunctionError, Inner};
use crate::lock::lock;
use crate::nodes::imds::ACCOUNT;
use crate::standin::s3::{ACCESS_KEY, SECRET_KEY};

/// How long a new process may take until it requests its first event.
const INIT_LIMIT: Duration = Duration::from_secs(10);

type Reply = oneshot::Sender<Result<Value, FunctionError>>;

/// One event for the process.
pub(super) struct Job {
    pub(super) id: String,
    pub(super) payload: Value,
    pub(super) deadline: SystemTime,
    pub(super) reply: Reply,
}

/// One process of a function.
pub(super) struct Environment {
    pub(super) id: String,
    pub(super) function: String,
    pub(super) arn: String,
    started: Instant,
    process: Option<u32>,
    jobs: mpsc::Sender<Job>,
    queue: tokio::sync::Mutex<mpsc::Receiver<Job>>,
    /// The id of the request that the process works on, and the channel for its answer.
    current: Mutex<Option<(String, Reply)>>,
    init_error: Mutex<Option<FunctionError>>,
    ready: watch::Sender<bool>,
    /// The exit status of the process, or `None` while it runs.
    ended: watch::Sender<Option<String>>,
    killed: AtomicBool,
    timed_out: AtomicBool,
    kill: Notify,
}

impl Environment {
    /// Starts a process with the environment variables that Lambda sets.
    pub(super) fn spawn(
        lambda: &Arc<Inner>,
        function: &Function,
    ) -> Result<Arc<Self>, FunctionError> {
        if lambda.closed() {
            return Err(failure("StandInFailed", "the stand-in was shut down"));
        }
        let id = uuid::Uuid::new_v4().simple().to_string();
        let mut child = command(lambda, function, &id).spawn().map_err(|error| {
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
                "arn:aws:lambda:{}:{ACCOUNT}:function:{}",
                lambda.settings.region, function.name
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
        tokio::spawn(Arc::clone(&environment).supervise(child));
        Ok(environment)
    }

    /// Waits until the process ends, and kills it when it is to be killed.
    async fn supervise(self: Arc<Self>, mut child: Child) {
        tokio::select! {
            () = self.kill.notified() => {
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
        self.ended.send_replace(Some(status));
    }

    /// Sends an event to the process and waits for its answer, its end, or the timeout.
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

    /// Waits until the process requests its first event. Returns an error if it ends or takes too long.
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
        // The process's own report is more precise than its exit status.
        Err(lock(&self.init_error).take().unwrap_or(early))
    }

    /// Waits for the next event. The event is `None` if there will be no more. At the first call, the second value is the
    /// time since the start of the process.
    pub(super) async fn next(&self) -> (Option<Job>, Option<Duration>) {
        let first = !self.ready.send_replace(true);
        let start = first.then(|| self.started.elapsed());
        (self.queue.lock().await.recv().await, start)
    }

    /// Records the request that the process works on.
    pub(super) fn working_on(&self, id: String, reply: Reply) {
        *lock(&self.current) = Some((id, reply));
    }

    /// Passes the answer of the process on. Returns `false` if it does not work on this request.
    pub(super) fn answer(&self, id: &str, result: Result<Value, FunctionError>) -> bool {
        let mut current = lock(&self.current);
        let working = current.as_ref().is_some_and(|(known, _)| known == id);
        if !working {
            return false;
        }
        // The receiver may be gone after a timeout.
        current
            .take()
            .is_some_and(|(_, reply)| reply.send(result).is_ok())
    }

    /// Records the error that the process reported about its start.
    pub(super) fn failed_to_start(&self, error: FunctionError) {
        *lock(&self.init_error) = Some(error);
    }

    /// Returns whether the process has ended or was killed.
    pub(super) fn ended(&self) -> bool {
        self.killed.load(Ordering::SeqCst) || self.ended.borrow().is_some()
    }

    /// Kills the process.
    pub(super) fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        self.kill.notify_one();
    }

    /// Kills the process as Lambda does after the function's timeout.
    pub(super) fn time_out(&self) {
        self.timed_out.store(true, Ordering::SeqCst);
        self.kill();
    }

    /// Returns the process id, or `None` if the process has ended.
    pub(super) fn process(&self) -> Option<u32> {
        self.process.filter(|_| !self.ended())
    }
}

/// Returns the command that starts a function's process with Lambda's environment variables.
fn command(lambda: &Inner, function: &Function, id: &str) -> Command {
    let settings = &lambda.settings;
    let api = format!("http://{}/{id}", lambda.address);
    let memory = function.memory_mb.to_string();
    let log_group = format!("/aws/lambda/{}", function.name);
    let mut command = Command::new(&function.binary);
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LANG", "en_US.UTF-8")
        .env("TZ", ":UTC")
        .env("AWS_LAMBDA_RUNTIME_API", api)
        .env("AWS_LAMBDA_FUNCTION_NAME", &function.name)
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory)
        .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
        .env("AWS_LAMBDA_LOG_GROUP_NAME", log_group)
        .env("AWS_LAMBDA_LOG_STREAM_NAME", id)
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
    command
}

/// Returns an error of the stand-in itself.
pub(super) fn failure(error_type: &str, message: &str) -> FunctionError {
    FunctionError {
        error_type: error_type.to_owned(),
        message: message.to_owned(),
    }
}
