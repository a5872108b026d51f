//! Reads the template that is deployed to AWS, so that the stand-in deploys the same.
//!
//! It reads functions, the rules that invoke them, SSM documents and lifecycle hooks. Other resources are resolved as far
//! as these refer to them.

mod resolve;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

use resolve::Resolver;

/// The types of the resources that are read.
const READ: [&str; 4] = [FUNCTION, DOCUMENT, GROUP, HOOK];
const FUNCTION: &str = "AWS::Serverless::Function";
const DOCUMENT: &str = "AWS::SSM::Document";
const GROUP: &str = "AWS::AutoScaling::AutoScalingGroup";
const HOOK: &str = "AWS::AutoScaling::LifecycleHook";

/// The parts of a template that the stand-in runs.
#[derive(Debug, Clone)]
pub struct Template {
    /// The functions with a binary of this workspace.
    pub functions: Vec<FunctionSpec>,
    /// The SSM documents.
    pub documents: Vec<DocumentSpec>,
    /// The lifecycle hooks of all groups.
    pub hooks: Vec<HookSpec>,
    /// Every resource whose condition holds, resolved, by logical id.
    pub resources: BTreeMap<String, Value>,
}

/// One Lambda function.
#[derive(Debug, Clone)]
pub struct FunctionSpec {
    /// Its logical id in the template.
    pub logical_id: String,
    /// Its `FunctionName`, or the logical id if it has none.
    pub name: String,
    /// The name of its binary.
    pub binary: String,
    /// Its environment variables, those of `Globals` included.
    pub environment: BTreeMap<String, String>,
    /// The timeout of one invocation.
    pub timeout: Duration,
    /// Memory in MB.
    pub memory_mb: u32,
    /// The logical id of its role, or `None` if SAM creates the role.
    pub role: Option<String>,
    /// The rules that invoke it.
    pub rules: Vec<Rule>,
    /// The number of retries of a failed asynchronous invocation.
    pub retries: u32,
    /// The largest age of an asynchronous event.
    pub max_event_age: Duration,
}

/// A rule that invokes a function.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// It is invoked with events that match this pattern.
    Pattern(Value),
    /// It is invoked at an interval.
    Schedule {
        /// The time between two invocations.
        every: Duration,
        /// The payload, or `None` for the scheduled event itself.
        input: Option<Value>,
    },
}

/// One SSM document.
#[derive(Debug, Clone)]
pub struct DocumentSpec {
    /// Its logical id in the template.
    pub logical_id: String,
    /// Its `Name`, or the logical id if it has none.
    pub name: String,
    /// Its content, with every intrinsic function resolved.
    pub content: Value,
}

/// One lifecycle hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookSpec {
    /// Its name.
    pub name: String,
    /// `autoscaling:EC2_INSTANCE_LAUNCHING` or `autoscaling:EC2_INSTANCE_TERMINATING`.
    pub transition: String,
    /// The time after which it expires without a heartbeat.
    pub heartbeat: Duration,
    /// The result when it expires: `CONTINUE` or `ABANDON`.
    pub default_result: String,
}

impl Template {
    /// Reads a template file with these parameters, and with the defaults of the others.
    pub fn load(path: &Path, parameters: &BTreeMap<String, String>) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text, parameters).with_context(|| format!("in {}", path.display()))
    }

    /// Reads a template with these parameters, and with the defaults of the others.
    pub fn parse(text: &str, parameters: &BTreeMap<String, String>) -> Result<Self> {
        let resolver = Resolver::new(text, parameters)?;
        let resources = resolver.resources()?;
        let globals = resolver.globals()?;
        let mut template = Self {
            functions: Vec::new(),
            documents: Vec::new(),
            hooks: Vec::new(),
            resources: BTreeMap::new(),
        };
        for (logical_id, resource) in &resources {
            let read = template.read(logical_id, resource, &globals);
            read.with_context(|| format!("in {logical_id}"))?;
        }
        template.resources = resources;
        Ok(template)
    }

    /// Adds a resource, if it has one of the types that are read.
    fn read(&mut self, logical_id: &str, resource: &Value, globals: &Value) -> Result<()> {
        let properties = &resource["Properties"];
        match text(&resource["Type"]).as_deref() {
            Some(FUNCTION) => {
                if let Some(binary) = text(&resource["Metadata"]["BuildProperties"]["Binary"]) {
                    let function = function(logical_id, &binary, properties, globals)?;
                    self.functions.push(function);
                }
            }
            Some(DOCUMENT) => self.documents.push(DocumentSpec {
                logical_id: logical_id.to_owned(),
                name: text(&properties["Name"]).unwrap_or_else(|| logical_id.to_owned()),
                content: properties["Content"].clone(),
            }),
            Some(GROUP) => {
                let hooks = properties["LifecycleHookSpecificationList"].as_array();
                for properties in hooks.into_iter().flatten() {
                    self.hooks.push(hook(properties)?);
                }
            }
            Some(HOOK) => self.hooks.push(hook(properties)?),
            _ => {}
        }
        Ok(())
    }

    /// Returns the function with this logical id, or `None` if there is none.
    pub fn function(&self, logical_id: &str) -> Option<&FunctionSpec> {
        self.functions
            .iter()
            .find(|function| function.logical_id == logical_id)
    }

    /// Returns the document with this logical id, or `None` if there is none.
    pub fn document(&self, logical_id: &str) -> Option<&DocumentSpec> {
        self.documents
            .iter()
            .find(|document| document.logical_id == logical_id)
    }
}

/// Reads a function.
fn function(
    logical_id: &str,
    binary: &str,
    properties: &Value,
    globals: &Value,
) -> Result<FunctionSpec> {
    let property = |name: &str| match &properties[name] {
        Value::Null => globals[name].clone(),
        own => own.clone(),
    };
    let mut environment = BTreeMap::new();
    for variables in
        [globals, properties].map(|level| level["Environment"]["Variables"].as_object())
    {
        for (name, value) in variables.into_iter().flatten() {
            let value = text(value).with_context(|| format!("{name} is not a string: {value}"))?;
            environment.insert(name.clone(), value);
        }
    }
    let asynchronous = property("EventInvokeConfig");
    let mut rules = Vec::new();
    for (name, event) in properties["Events"].as_object().into_iter().flatten() {
        rules.extend(rule(event).with_context(|| format!("in the event {name}"))?);
    }
    Ok(FunctionSpec {
        logical_id: logical_id.to_owned(),
        name: text(&properties["FunctionName"]).unwrap_or_else(|| logical_id.to_owned()),
        binary: binary.to_owned(),
        environment,
        // Lambda's defaults.
        timeout: Duration::from_secs(number(&property("Timeout"))?.unwrap_or(3)),
        memory_mb: u32::try_from(number(&property("MemorySize"))?.unwrap_or(128))?,
        role: text(&property("Role")).and_then(|role| role.strip_suffix(".Arn").map(str::to_owned)),
        rules,
        retries: u32::try_from(number(&asynchronous["MaximumRetryAttempts"])?.unwrap_or(2))?,
        max_event_age: Duration::from_secs(
            number(&asynchronous["MaximumEventAgeInSeconds"])?.unwrap_or(21_600),
        ),
    })
}

/// Reads one of a function's events. Returns `None` if it is disabled or does not come from EventBridge.
fn rule(event: &Value) -> Result<Option<Rule>> {
    let properties = &event["Properties"];
    let off = properties["State"] == "DISABLED"
        || matches!(text(&properties["Enabled"]).as_deref(), Some("false"));
    let kind = text(&event["Type"]).unwrap_or_default();
    let expression = match kind.as_str() {
        _ if off => return Ok(None),
        "EventBridgeRule" | "CloudWatchEvent" => {
            return Ok(Some(Rule::Pattern(properties["Pattern"].clone())));
        }
        "Schedule" => &properties["Schedule"],
        "ScheduleV2" => &properties["ScheduleExpression"],
        _ => return Ok(None),
    };
    let expression = text(expression).context("the schedule has no expression")?;
    let input = text(&properties["Input"]);
    let input = input.map(|input| serde_json::from_str(&input).context("Input is not JSON"));
    Ok(Some(Rule::Schedule {
        every: rate(&expression)?,
        input: input.transpose()?,
    }))
}

/// Reads a rate, such as `rate(15 minutes)`.
fn rate(expression: &str) -> Result<Duration> {
    let inner = expression
        .strip_prefix("rate(")
        .and_then(|rest| rest.strip_suffix(')'));
    let parts: Vec<&str> = inner.unwrap_or_default().split_whitespace().collect();
    let [count, unit] = parts.as_slice() else {
        bail!("the stand-in supports only schedules such as rate(15 minutes), not {expression}");
    };
    let count: u64 = count.parse().with_context(|| format!("in {expression}"))?;
    let seconds = match *unit {
        "minute" | "minutes" => 60,
        "hour" | "hours" => 3600,
        "day" | "days" => 86_400,
        other => bail!("{expression} has the unknown unit {other}"),
    };
    Ok(Duration::from_secs(count * seconds))
}

/// Reads a lifecycle hook.
fn hook(properties: &Value) -> Result<HookSpec> {
    let required = |name: &str| {
        text(&properties[name]).with_context(|| format!("a lifecycle hook has no {name}"))
    };
    Ok(HookSpec {
        name: required("LifecycleHookName")?,
        transition: required("LifecycleTransition")?,
        // Auto Scaling's defaults.
        heartbeat: Duration::from_secs(number(&properties["HeartbeatTimeout"])?.unwrap_or(3600)),
        default_result: text(&properties["DefaultResult"]).unwrap_or_else(|| "ABANDON".to_owned()),
    })
}

/// Returns a scalar as a string, as `CloudFormation` does, or `None` for other values.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn number(value: &Value) -> Result<Option<u64>> {
    let number = text(value).map(|text| {
        text.parse()
            .with_context(|| format!("{text:?} is not a number"))
    });
    number.transpose()
}

fn empty() -> Value {
    Value::Object(Map::new())
}

#[cfg(test)]
mod tests;
