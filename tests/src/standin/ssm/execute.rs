//! The SSM agent: accepts a command, runs its steps one after the other, and reports.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::Ssm;
use super::command::Status;
use super::document::Parameters;
use super::document::{StepSpec, timeout_seconds};
use crate::lock::lock;
use crate::nodes::machine::{Node, Script, ScriptEnd};
use crate::standin::clock;

/// How often an agent checks whether it may start a command.
const POLL: Duration = Duration::from_millis(20);
/// The exit code that requests a reboot. After it, the agent runs the step again.
const REBOOT: i32 = 194;
/// The exit code of a killed script. SSM reports it as a timeout.
const KILLED: i32 = 137;

/// The result of a step.
struct StepEnd {
    status: Status,
    code: i32,
    stdout: String,
    stderr: String,
}

impl StepEnd {
    /// Returns the result of a step that the agent could not run.
    fn failed(error: &anyhow::Error) -> Self {
        Self {
            status: Status::Failed,
            code: 1,
            stdout: String::new(),
            stderr: format!("{error:#}"),
        }
    }
}

/// Waits until the node's agent accepts the command, runs it on the node, and reports the result.
pub(super) async fn deliver(ssm: Arc<Ssm>, command: String, node: Arc<Node>) {
    let Some(accepted) = accept(&ssm, &command, &node).await else {
        return;
    };
    let Accepted {
        steps,
        parameters,
        cancel,
        ..
    } = &accepted;
    let mut worst = Status::Success;
    for (number, step) in steps.iter().enumerate() {
        if !step.for_linux {
            continue;
        }
        let inputs = step.filled(parameters);
        begin(&ssm, &command, &node, number);
        let end = run(&ssm, &command, &node, step, &inputs, cancel.clone()).await;
        if !node.has_power() {
            return;
        }
        let status = end.status;
        report(&ssm, &command, &node, number, end);
        if status != Status::Success {
            worst = status;
        }
        // As in the real agent, only a failure ends the document; a timeout does not.
        let exits = inputs.get("onFailure").and_then(Value::as_str) == Some("exit");
        if status == Status::Cancelled || (status == Status::Failed && exits) {
            break;
        }
    }
    // A stopped agent reports when it runs again.
    while !node.agent_runs() {
        if !node.has_power() || is_over(&ssm, &command, &node) {
            return;
        }
        tokio::time::sleep(POLL).await;
    }
    if let Some(command) = lock(&ssm.state).commands.get_mut(&command) {
        ssm.set_status(command, node.id(), worst);
    }
}

/// A command that an agent has accepted.
struct Accepted {
    steps: Vec<StepSpec>,
    parameters: Parameters,
    cancel: watch::Receiver<bool>,
    /// Released when the command has ended.
    _worker: OwnedSemaphorePermit,
}

/// Waits until the agent runs and has a free worker, and accepts the command. Returns `None` if the command has ended
/// before, or if the node loses its power: SSM then handles the command.
async fn accept(ssm: &Ssm, id: &str, node: &Node) -> Option<Accepted> {
    while node.has_power() {
        let worker = node.worker();
        {
            let mut state = lock(&ssm.state);
            let command = state.commands.get_mut(id);
            if let Some(command) = command {
                let running = command.count(|status| status == Status::InProgress);
                let free = running < command.limit(&command.max_concurrency).max(1);
                let failed = command.errors() > command.limit(&command.max_errors);
                let invocation = command.invocation(node.id())?;
                if invocation.status != Status::Pending {
                    return None;
                }
                let cancel = invocation.cancel.subscribe();
                if failed {
                    ssm.set_status(command, node.id(), Status::Terminated);
                    return None;
                }
                if free
                    && node.agent_runs()
                    && let Some(worker) = worker
                {
                    ssm.set_status(command, node.id(), Status::InProgress);
                    return Some(Accepted {
                        steps: command.document.steps.clone(),
                        parameters: command.parameters.clone(),
                        cancel,
                        _worker: worker,
                    });
                }
            }
        }
        tokio::time::sleep(POLL).await;
    }
    None
}

/// Returns whether the command's invocation on the node has a final status.
fn is_over(ssm: &Ssm, id: &str, node: &Node) -> bool {
    let mut state = lock(&ssm.state);
    let command = state.commands.get_mut(id);
    let invocation = command.and_then(|command| command.invocation(node.id()));
    invocation.is_none_or(|invocation| invocation.status.is_final())
}

/// Records the start of a step.
fn begin(ssm: &Ssm, id: &str, node: &Node, number: usize) {
    let mut state = lock(&ssm.state);
    let command = state.commands.get_mut(id);
    if let Some(step) = command
        .and_then(|command| command.invocation(node.id()))
        .and_then(|invocation| invocation.steps.get_mut(number))
    {
        step.status = Status::InProgress;
        step.started = Some(clock::now());
    }
}

/// Records the result of a step.
fn report(ssm: &Ssm, id: &str, node: &Node, number: usize, end: StepEnd) {
    let mut state = lock(&ssm.state);
    let command = state.commands.get_mut(id);
    if let Some(step) = command
        .and_then(|command| command.invocation(node.id()))
        .and_then(|invocation| invocation.steps.get_mut(number))
    {
        step.status = end.status;
        step.code = end.code;
        step.stdout = end.stdout;
        step.stderr = end.stderr;
        step.ended = Some(clock::now());
    }
}

/// Runs a step on the node, and again after each reboot that it requests.
async fn run(
    ssm: &Ssm,
    command: &str,
    node: &Arc<Node>,
    step: &StepSpec,
    inputs: &Map<String, Value>,
    cancel: watch::Receiver<bool>,
) -> StepEnd {
    if step.action == "aws:downloadContent" {
        return match download(node, inputs).await {
            Ok(()) => StepEnd {
                status: Status::Success,
                code: 0,
                stdout: "Content downloaded".to_owned(),
                stderr: String::new(),
            },
            Err(error) => StepEnd::failed(&error),
        };
    }
    let lines = inputs.get("runCommand").and_then(Value::as_array);
    let lines: Vec<&str> = lines
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let script = Script {
        command: command.to_owned(),
        step: step.name.clone(),
        text: lines.join("\n"),
        limit: ssm.pace.execution.wait(f64::from(timeout_seconds(inputs))),
        cancel,
    };
    loop {
        let end = match node.run(&script).await {
            Ok(end) => end,
            Err(error) => return StepEnd::failed(&error),
        };
        if end.code == REBOOT && node.has_power() {
            node.reboot().await;
            continue;
        }
        return step_end(end, *script.cancel.borrow());
    }
}

fn step_end(end: ScriptEnd, cancelled: bool) -> StepEnd {
    let status = match end.code {
        0 => Status::Success,
        _ if cancelled => Status::Cancelled,
        _ if end.timed_out => Status::ExecutionTimedOut,
        KILLED => Status::ExecutionTimedOut,
        _ => Status::Failed,
    };
    StepEnd {
        status,
        code: end.code,
        stdout: end.stdout,
        stderr: end.stderr,
    }
}

/// Downloads an S3 object, given by its regional URL, to a path below the node's root.
async fn download(node: &Node, inputs: &Map<String, Value>) -> Result<()> {
    let source = inputs.get("sourceInfo");
    let source: Value = match source {
        Some(Value::String(text)) => serde_json::from_str(text).context("sourceInfo")?,
        Some(other) => other.clone(),
        None => anyhow::bail!("sourceInfo is missing"),
    };
    let path = source["path"].as_str().context("sourceInfo has no path")?;
    let url = url::Url::parse(path).with_context(|| format!("sourceInfo path {path:?}"))?;
    let host = url.host_str().unwrap_or_default();
    let (bucket, _) = host
        .split_once(".s3.")
        .with_context(|| format!("{path:?} is not https://<bucket>.s3.<region>.<suffix>/<key>"))?;
    let key = url.path().trim_start_matches('/');
    let destination = inputs.get("destinationPath").and_then(Value::as_str);
    let destination = destination.context("destinationPath is missing")?;
    node.download(bucket, key, destination).await
}
