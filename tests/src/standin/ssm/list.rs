//! The status of commands: `ListCommands`, `ListCommandInvocations`, `GetCommandInvocation`.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Ssm;
use super::command::{Command, Invocation, Status, Step, seconds};
use super::request::{page, text, validation, whole};
use crate::lock::lock;
use crate::standin::clock;
use crate::standin::clock::milliseconds;
use crate::standin::fault::{ApiError, ApiResult};

/// The most characters of standard output and of standard error in `GetCommandInvocation`.
const OUTPUT: (usize, usize) = (24_000, 8_000);
/// The most characters of both together in a listing.
const LISTED_OUTPUT: usize = 2_500;
/// The filter keys of both listings.
const FILTERS: &[&str] = &[
    "InvokedAfter",
    "InvokedBefore",
    "Status",
    "ExecutionStage",
    "DocumentName",
];

/// Answers `ListCommands`.
pub(super) fn commands(ssm: &Ssm, request: &Value) -> ApiResult<Value> {
    let size = whole(request, "MaxResults", 1..=50, 50)?;
    let filters = filters(request, FILTERS)?;
    let wanted = |command: &&Command| passes(command, command.status(), &filters);
    let found = named(ssm, request, wanted, Command::json)?;
    let (commands, next) = page(found, size, request)?;
    Ok(json!({"Commands": commands, "NextToken": next}))
}

/// Answers `ListCommandInvocations`.
pub(super) fn invocations(ssm: &Ssm, request: &Value) -> ApiResult<Value> {
    let size = whole(request, "MaxResults", 1..=50, 50)?;
    let details = request["Details"].as_bool().unwrap_or_default();
    let instance = request["InstanceId"].as_str();
    let filters = filters(request, FILTERS)?;
    let found = named(
        ssm,
        request,
        |_| true,
        |command| {
            let invocations = command.invocations.iter();
            let invocations = invocations
                .filter(|one| instance.is_none_or(|id| one.instance == id))
                .filter(|one| passes(command, one.status, &filters))
                .map(|one| listed(command, one, details));
            Value::Array(invocations.collect())
        },
    )?;
    let found = found.into_iter().flat_map(|list| match list {
        Value::Array(invocations) => invocations,
        _ => Vec::new(),
    });
    let (invocations, next) = page(found.collect(), size, request)?;
    Ok(json!({"CommandInvocations": invocations, "NextToken": next}))
}

/// Returns the result of `map` for each command that the request selects, newest first. New commands are hidden for a while.
fn named(
    ssm: &Ssm,
    request: &Value,
    wanted: impl Fn(&&Command) -> bool,
    map: impl Fn(&Command) -> Value,
) -> ApiResult<Vec<Value>> {
    let id = request["CommandId"].as_str();
    if id.is_some_and(|id| id.len() != 36) {
        return Err(ApiError::new(
            "InvalidCommandId",
            "A command id has 36 characters.",
        ));
    }
    let instance = request["InstanceId"].as_str();
    let now = clock::now();
    let state = lock(&ssm.state);
    let mut found: Vec<&Command> = state
        .commands
        .values()
        .filter(|command| command.visible_from <= now)
        .filter(|command| id.is_none_or(|id| command.id == id))
        .filter(|command| {
            let mut invocations = command.invocations.iter();
            instance.is_none_or(|id| invocations.any(|one| one.instance == id))
        })
        .filter(wanted)
        .collect();
    found.sort_by_key(|command| std::cmp::Reverse(command.requested));
    Ok(found.into_iter().map(map).collect())
}

/// Returns the keys and values of the request's `Filters`, or an error for a key that is not in `known`.
fn filters(request: &Value, known: &[&str]) -> ApiResult<Vec<(String, String)>> {
    let filters = request["Filters"].as_array();
    let mut read = Vec::new();
    for filter in filters.into_iter().flatten() {
        let key = filter["key"].as_str().unwrap_or_default();
        if !known.contains(&key) {
            return Err(ApiError::new(
                "InvalidFilterKey",
                format!("The filter key {key:?} isn't valid."),
            ));
        }
        let value = text(filter, "value")?.to_owned();
        if key.starts_with("Invoked") && OffsetDateTime::parse(&value, &Rfc3339).is_err() {
            return Err(validation(format!(
                "{key} {value:?} is not a time such as 2026-11-23T02:15:00Z"
            )));
        }
        read.push((key.to_owned(), value));
    }
    Ok(read)
}

/// Returns whether all filters match.
fn passes(command: &Command, status: Status, filters: &[(String, String)]) -> bool {
    filters.iter().all(|(key, value)| {
        let time = OffsetDateTime::parse(value, &Rfc3339);
        match key.as_str() {
            "InvokedAfter" => time.is_ok_and(|time| command.requested >= time),
            "InvokedBefore" => time.is_ok_and(|time| command.requested <= time),
            "Status" => [status.as_str(), status.details()].contains(&value.as_str()),
            "ExecutionStage" => (value == "Complete") == status.is_final(),
            "DocumentName" => command.document.name == *value,
            _ => false,
        }
    })
}

/// Returns an invocation as `ListCommandInvocations` shows it.
fn listed(command: &Command, invocation: &Invocation, details: bool) -> Value {
    let status = invocation.status;
    let plugins = invocation.steps.iter().map(|step| {
        let output = match (step.stdout.as_str(), step.stderr.as_str()) {
            (out, "") => out.to_owned(),
            (out, err) => format!("{out}\n----------ERROR-------\n{err}"),
        };
        json!({
            "Name": step.name,
            "Status": step.status.as_str(),
            "StatusDetails": step.status.details(),
            "ResponseCode": step.code,
            "ResponseStartDateTime": step.started.map(seconds),
            "ResponseFinishDateTime": step.ended.map(seconds),
            "Output": head(&output, LISTED_OUTPUT),
        })
    });
    let plugins: Vec<Value> = if details {
        plugins.collect()
    } else {
        Vec::new()
    };
    json!({
        "CommandId": command.id,
        "InstanceId": invocation.instance,
        "InstanceName": "",
        "Comment": command.comment,
        "DocumentName": command.document.name,
        "DocumentVersion": "$DEFAULT",
        "RequestedDateTime": seconds(command.requested),
        "Status": status.as_str(),
        "StatusDetails": status.details(),
        "StandardOutputUrl": "",
        "StandardErrorUrl": "",
        "CommandPlugins": plugins,
    })
}

/// Answers `GetCommandInvocation`.
pub(super) fn invocation(ssm: &Ssm, request: &Value) -> ApiResult<Value> {
    let id = text(request, "CommandId")?;
    let instance = text(request, "InstanceId")?;
    if id.len() != 36 {
        return Err(ApiError::new(
            "InvalidCommandId",
            "A command id has 36 characters.",
        ));
    }
    let absent = || {
        ApiError::new(
            "InvocationDoesNotExist",
            "The command ID and managed node ID you specified didn't match any invocations.",
        )
    };
    let state = lock(&ssm.state);
    let command = state.commands.get(id).ok_or_else(absent)?;
    if command.visible_from > clock::now() {
        return Err(absent());
    }
    let mut invocations = command.invocations.iter();
    let invocation = invocations
        .find(|one| one.instance == instance)
        .ok_or_else(absent)?;
    let step = match request["PluginName"].as_str() {
        Some(name) => invocation.steps.iter().find(|step| step.name == name),
        None if invocation.steps.len() == 1 => invocation.steps.first(),
        None => None,
    };
    let step = step.ok_or_else(|| {
        ApiError::new(
            "InvalidPluginName",
            "The plugin name isn't valid: name one of the document's steps.",
        )
    })?;
    Ok(shown(command, invocation, step))
}

/// Returns a step as `GetCommandInvocation` shows it.
fn shown(command: &Command, invocation: &Invocation, step: &Step) -> Value {
    // A step that never ran shows the invocation's final status. Output is shown only when a step has ended.
    let status = match (step.status, invocation.status) {
        (step, whole) if step.is_final() || !whole.is_final() => step,
        (_, whole) => whole,
    };
    let (stdout, stderr) = if step.status.is_final() {
        (head(&step.stdout, OUTPUT.0), head(&step.stderr, OUTPUT.1))
    } else {
        (String::new(), String::new())
    };
    let elapsed = match (step.started, step.ended) {
        (Some(start), Some(end)) => format!("PT{:.3}S", (end - start).as_seconds_f64()),
        _ => String::new(),
    };
    json!({
        "CommandId": command.id,
        "InstanceId": invocation.instance,
        "Comment": command.comment,
        "DocumentName": command.document.name,
        "DocumentVersion": "$DEFAULT",
        "PluginName": step.name,
        "ResponseCode": step.code,
        "ExecutionStartDateTime": step.started.map(milliseconds).unwrap_or_default(),
        "ExecutionElapsedTime": elapsed,
        "ExecutionEndDateTime": step.ended.map(milliseconds).unwrap_or_default(),
        "Status": status.as_str(),
        "StatusDetails": status.details(),
        "StandardOutputContent": stdout,
        "StandardOutputUrl": "",
        "StandardErrorContent": stderr,
        "StandardErrorUrl": "",
        "CloudWatchOutputConfig": {"CloudWatchLogGroupName": "", "CloudWatchOutputEnabled": false},
    })
}

/// Returns the first characters of a text: SSM cuts off the rest.
fn head(text: &str, limit: usize) -> String {
    text.chars().take(limit).collect()
}
