//! `SendCommand` and `CancelCommand`.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::command::{Command, Invocation, Parameters, Status, Step};
use super::request::{text, texts, validation, whole};
use super::{Ssm, command_id, execute};
use crate::lock::lock;
use crate::standin::autoscaling::ACCOUNT;
use crate::standin::clock;
use crate::standin::fault::{ApiError, ApiResult};

/// The most instances of one command.
const MOST_INSTANCES: usize = 50;

pub(super) fn command(ssm: &Arc<Ssm>, request: &Value) -> ApiResult<Value> {
    let name = text(request, "DocumentName")?;
    let document = ssm.documents.get(name).cloned().ok_or_else(|| {
        ApiError::new(
            "InvalidDocument",
            format!("Document with name {name} does not exist."),
        )
    })?;
    let version = request["DocumentVersion"].as_str().unwrap_or("$DEFAULT");
    if !["$DEFAULT", "$LATEST", "1"].contains(&version) {
        return Err(ApiError::new(
            "InvalidDocumentVersion",
            format!("The document version {version} isn't valid or doesn't exist."),
        ));
    }
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
    let delivery = f64::from(timeout_seconds);
    let deliver_by = clock.after(now, delivery);
    let end_by = clock.after(deliver_by, document.execution_timeout(&parameters));
    let mut state = lock(&ssm.state);
    let mut invocations = Vec::new();
    let mut nodes = Vec::new();
    let mut invalid = Vec::new();
    for instance in instances {
        // A terminated or unregistered instance refuses the command for all others too.
        match state.agents.get(&instance) {
            Some(agent) if !agent.node.is_discarded() => {
                nodes.push(Arc::clone(&agent.node));
                let steps = document.steps.iter().map(|step| Step {
                    name: step.name.clone(),
                    status: Status::Pending,
                    code: -1,
                    stdout: String::new(),
                    stderr: String::new(),
                    started: None,
                    ended: None,
                });
                invocations.push(Invocation {
                    steps: steps.collect(),
                    instance,
                    status: Status::Pending,
                    deliver_by,
                    end_by,
                    cancel: watch::Sender::new(false),
                });
            }
            _ => invalid.push(instance),
        }
    }
    if !invalid.is_empty() {
        return Err(ApiError::new(
            "InvalidInstanceId",
            format!(
                "Instances [[{}]] not in a valid state for account {ACCOUNT}",
                invalid.join(", ")
            ),
        ));
    }
    let limit = |field: &str, default: &str| {
        let given = request[field].as_str();
        given.unwrap_or(default).to_owned()
    };
    let command = Command {
        id: command_id(),
        document,
        parameters,
        comment: comment.to_owned(),
        requested: now,
        visible_from: clock.after(now, ssm.pace.hidden),
        expires: end_by,
        timeout_seconds,
        max_concurrency: limit("MaxConcurrency", "50"),
        max_errors: limit("MaxErrors", "0"),
        invocations,
    };
    let answer = json!({"Command": command.json()});
    for node in nodes {
        tokio::spawn(execute::deliver(Arc::clone(ssm), command.id.clone(), node));
    }
    state.commands.insert(command.id.clone(), command);
    Ok(answer)
}

fn instances(request: &Value) -> ApiResult<Vec<String>> {
    let instances = texts(request, "InstanceIds");
    if instances.is_empty() {
        return Err(validation(
            "InstanceIds is empty; this stand-in resolves no Targets",
        ));
    }
    if instances.len() > MOST_INSTANCES {
        return Err(validation(format!(
            "1 validation error detected: Value at 'instanceIds' failed to satisfy constraint: Member must \
             have length less than or equal to {MOST_INSTANCES}"
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
