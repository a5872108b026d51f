//! `SendCommand` and `CancelCommand`.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::watch;

use super::command::{Command, Invocation, Status, Step};
use super::document::Document;
use super::document::Parameters;
use super::request::{text, texts, validation, whole};
use super::{Ssm, State, command_id, execute};
use crate::lock::lock;
use crate::nodes::machine::Node;
use crate::standin::autoscaling::ACCOUNT;
use crate::standin::clock;
use crate::standin::fault::{ApiError, ApiResult};

/// How long `GetCommandInvocation` and the listings do not return a new command, in seconds of AWS's time.
const HIDDEN: f64 = 2.0;

/// The most instances of a command.
const MAX_INSTANCES: usize = 50;

/// Answers `SendCommand`: stores the command and delivers it in the background.
pub(super) fn command(ssm: &Arc<Ssm>, request: &Value) -> ApiResult<Value> {
    let document = document(ssm, request)?;
    let instances = instances(request)?;
    let timeout_seconds = whole(request, "TimeoutSeconds", 30..=2_592_000, 3600)?;
    let timeout_seconds = u32::try_from(timeout_seconds).unwrap_or(u32::MAX);
    let comment = request["Comment"].as_str().unwrap_or_default();
    if comment.chars().count() > 100 {
        return Err(validation("Comment has more than 100 characters"));
    }
    let parameters = match &request["Parameters"] {
        Value::Null => Parameters::new(),
        given => serde_json::from_value(given.clone()).map_err(|error| {
            ApiError::new("SerializationException", format!("Parameters: {error}"))
        })?,
    };
    let parameters = document.check(&parameters)?;

    let now = clock::now();
    let clock = ssm.pace.clock;
    let deliver_by = clock.after(now, f64::from(timeout_seconds));
    let end_by = clock.after(deliver_by, document.execution_timeout(&parameters));
    let mut state = lock(&ssm.state);
    let nodes = nodes(&state, &instances)?;
    let invocations = nodes
        .iter()
        .map(|node| invocation(&document, node, deliver_by, end_by));
    let limit = |field: &str, default: &str| {
        let given = request[field].as_str();
        given.unwrap_or(default).to_owned()
    };
    let command = Command {
        id: command_id(),
        invocations: invocations.collect(),
        document,
        parameters,
        comment: comment.to_owned(),
        requested: now,
        visible_from: clock.after(now, HIDDEN),
        expires: end_by,
        timeout_seconds,
        max_concurrency: limit("MaxConcurrency", "50"),
        max_errors: limit("MaxErrors", "0"),
    };
    let answer = json!({"Command": command.json()});
    for node in nodes {
        tokio::spawn(execute::deliver(Arc::clone(ssm), command.id.clone(), node));
    }
    state.commands.insert(command.id.clone(), command);
    Ok(answer)
}

/// Returns the document that the request names.
fn document(ssm: &Ssm, request: &Value) -> ApiResult<Arc<Document>> {
    let name = text(request, "DocumentName")?;
    let document = ssm.documents.get(name).cloned().ok_or_else(|| {
        ApiError::new(
            "InvalidDocument",
            format!("Document with name {name} does not exist."),
        )
    })?;
    let version = request["DocumentVersion"].as_str().unwrap_or("$DEFAULT");
    if ["$DEFAULT", "$LATEST", "1"].contains(&version) {
        return Ok(document);
    }
    Err(ApiError::new(
        "InvalidDocumentVersion",
        format!("The document version {version} isn't valid or doesn't exist."),
    ))
}

/// Returns the nodes of these instances. One terminated or unregistered instance makes SSM refuse the whole command.
fn nodes(state: &State, instances: &[String]) -> ApiResult<Vec<Arc<Node>>> {
    let mut nodes = Vec::new();
    let mut invalid = Vec::new();
    for instance in instances {
        match state.agents.get(instance) {
            Some(agent) if !agent.node.is_discarded() => nodes.push(Arc::clone(&agent.node)),
            _ => invalid.push(instance.as_str()),
        }
    }
    if invalid.is_empty() {
        return Ok(nodes);
    }
    Err(ApiError::new(
        "InvalidInstanceId",
        format!(
            "Instances [[{}]] not in a valid state for account {ACCOUNT}",
            invalid.join(", ")
        ),
    ))
}

/// Returns the invocation of a new command on a node.
fn invocation(
    document: &Document,
    node: &Node,
    deliver_by: OffsetDateTime,
    end_by: OffsetDateTime,
) -> Invocation {
    let steps = document.steps.iter().map(|step| Step {
        name: step.name.clone(),
        status: Status::Pending,
        code: -1,
        stdout: String::new(),
        stderr: String::new(),
        started: None,
        ended: None,
    });
    Invocation {
        steps: steps.collect(),
        instance: node.id().to_owned(),
        status: Status::Pending,
        deliver_by,
        end_by,
        cancel: watch::Sender::new(false),
    }
}

/// Returns the instances that the request names.
fn instances(request: &Value) -> ApiResult<Vec<String>> {
    let instances = texts(request, "InstanceIds");
    if instances.is_empty() {
        return Err(validation(
            "InstanceIds is empty; the stand-in does not support Targets",
        ));
    }
    if instances.len() > MAX_INSTANCES {
        return Err(validation(format!(
            "1 validation error detected: Value at 'instanceIds' failed to satisfy constraint: Member must \
             have length less than or equal to {MAX_INSTANCES}"
        )));
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = instances.iter().find(|id| !seen.insert(*id)) {
        return Err(ApiError::new(
            "DuplicateInstanceId",
            format!("You can't specify an instance ID in more than one association: {twice}"),
        ));
    }
    Ok(instances)
}

/// Answers `CancelCommand`.
pub(super) fn cancel(ssm: &Ssm, request: &Value) -> ApiResult<Value> {
    let id = text(request, "CommandId")?;
    let instances = texts(request, "InstanceIds");
    let mut state = lock(&ssm.state);
    let command = state.commands.get_mut(id).ok_or_else(|| {
        ApiError::new(
            "InvalidCommandId",
            format!("The command {id} is not known."),
        )
    })?;
    let open: Vec<(String, Status)> = command
        .invocations
        .iter()
        .filter(|one| instances.is_empty() || instances.contains(&one.instance))
        .filter(|one| !one.status.is_final())
        .map(|one| (one.instance.clone(), one.status))
        .collect();
    for (instance, status) in open {
        if let Some(invocation) = command.invocation(&instance) {
            invocation.cancel.send_replace(true);
        }
        let next = if status == Status::Pending {
            Status::Cancelled
        } else {
            Status::Cancelling
        };
        ssm.set_status(command, &instance, next);
    }
    Ok(json!({}))
}
