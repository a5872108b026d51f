//! SSM documents of schema 2.2: checks parameters and fills them into the steps.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use regex::Regex;
use regex_syntax::hir::{Hir, HirKind};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::standin::fault::{ApiError, ApiResult};

/// The parameters of a command, by name.
pub type Parameters = BTreeMap<String, Vec<String>>;

/// The most repetitions in a regular expression of Go. The agent, a Go program, checks the patterns again.
const MAX_REPETITIONS: u32 = 1000;
/// SSM's limit for the size of a document.
const MAX_BYTES: usize = 65_536;

/// A document.
#[derive(Debug)]
pub struct Document {
    pub(super) name: String,
    parameters: BTreeMap<String, Parameter>,
    pub(super) steps: Vec<StepSpec>,
}

#[derive(Debug)]
struct Parameter {
    kind: String,
    default: Option<Vec<String>>,
    allowed: Option<Regex>,
    allowed_values: Vec<String>,
}

/// One of a document's `mainSteps`.
#[derive(Debug, Clone)]
pub(super) struct StepSpec {
    pub(super) name: String,
    pub(super) action: String,
    pub(super) for_linux: bool,
    pub(super) inputs: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    schema_version: String,
    #[serde(default)]
    parameters: BTreeMap<String, ParameterContent>,
    main_steps: Vec<StepContent>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ParameterContent {
    r#type: String,
    default: Option<Value>,
    allowed_pattern: Option<String>,
    #[serde(default)]
    allowed_values: Vec<String>,
}

#[derive(Deserialize)]
struct StepContent {
    action: String,
    name: String,
    #[serde(default)]
    inputs: Map<String, Value>,
    precondition: Option<Value>,
}

impl Document {
    /// Reads a document. The error names the part that SSM or its agent would refuse.
    pub fn parse(name: &str, content: &Value) -> Result<Self> {
        let document = || format!("the SSM document {name}");
        ensure!(
            content.to_string().len() <= MAX_BYTES,
            "the SSM document {name} is larger than 64 KB"
        );
        let content: Content = serde_json::from_value(content.clone()).with_context(document)?;
        ensure!(
            content.schema_version == "2.2",
            "the SSM document {name} has schemaVersion {}; the stand-in supports only 2.2",
            content.schema_version
        );
        let mut parameters = BTreeMap::new();
        for (parameter, content) in content.parameters {
            let read = Parameter::read(content)
                .with_context(|| format!("the parameter {parameter} of the SSM document {name}"))?;
            parameters.insert(parameter, read);
        }
        let steps = content.main_steps.into_iter().map(StepSpec::read);
        Ok(Self {
            name: name.to_owned(),
            parameters,
            steps: steps.collect::<Result<_>>().with_context(document)?,
        })
    }

    /// Checks a command's parameters as `SendCommand` does. Returns them with the defaults added.
    pub(super) fn check(&self, given: &Parameters) -> ApiResult<Parameters> {
        let invalid = |message: String| ApiError::new("InvalidParameters", message);
        if let Some(name) = given
            .keys()
            .find(|name| !self.parameters.contains_key(*name))
        {
            return Err(invalid(format!(
                "document {} does not support parameter {name}",
                self.name
            )));
        }
        let mut values = Parameters::new();
        for (name, parameter) in &self.parameters {
            let value = given.get(name).or(parameter.default.as_ref());
            let value = value.ok_or_else(|| {
                invalid(format!("Parameter {name} is required and was not given."))
            })?;
            parameter
                .check(value)
                .map_err(|problem| invalid(format!("Parameter {name}: {problem}")))?;
            values.insert(name.clone(), value.clone());
        }
        Ok(values)
    }

    /// Returns the sum of the steps' timeouts in seconds: SSM waits this long for a silent agent.
    pub(super) fn execution_timeout(&self, parameters: &Parameters) -> f64 {
        let steps = self.steps.iter();
        steps
            .filter(|step| step.action == "aws:runShellScript")
            .map(|step| f64::from(timeout_seconds(&step.filled(parameters))))
            .sum()
    }
}

impl Parameter {
    fn read(content: ParameterContent) -> Result<Self> {
        ensure!(
            ["String", "StringList"].contains(&content.r#type.as_str()),
            "type {} is not supported: use String or StringList",
            content.r#type
        );
        let allowed = content.allowed_pattern.as_deref().map(allowed_pattern);
        let default = match content.default {
            None => None,
            Some(Value::String(text)) => Some(vec![text]),
            Some(list) => Some(serde_json::from_value(list).context("its default")?),
        };
        Ok(Self {
            kind: content.r#type,
            default,
            allowed: allowed.transpose()?,
            allowed_values: content.allowed_values,
        })
    }

    fn check(&self, values: &[String]) -> std::result::Result<(), String> {
        if self.kind == "String" && values.len() != 1 {
            return Err(format!("a String takes one value, not {}", values.len()));
        }
        for value in values {
            if let Some(pattern) = &self.allowed
                && !pattern.is_match(value)
            {
                return Err(format!("{value:?} does not match {pattern}"));
            }
            if !self.allowed_values.is_empty() && !self.allowed_values.contains(value) {
                return Err(format!("{value:?} is none of {:?}", self.allowed_values));
            }
        }
        Ok(())
    }
}

/// Compiles a pattern. Returns an error if the agent's Go could not compile it.
fn allowed_pattern(pattern: &str) -> Result<Regex> {
    let context = || format!("allowedPattern {pattern:?}");
    let hir = regex_syntax::parse(pattern).with_context(context)?;
    let repetitions = max_repetitions(&hir);
    if repetitions > MAX_REPETITIONS {
        bail!(
            "allowedPattern {pattern:?} repeats {repetitions} times; the agent's regular expressions allow \
             {MAX_REPETITIONS}, inner repetitions multiplied by outer ones"
        );
    }
    Regex::new(pattern).with_context(context)
}

/// Returns the product of nested repetitions, at its largest.
fn max_repetitions(hir: &Hir) -> u32 {
    match hir.kind() {
        HirKind::Repetition(repetition) => {
            let own = repetition.max.unwrap_or(repetition.min).max(1);
            own.saturating_mul(max_repetitions(&repetition.sub))
        }
        HirKind::Capture(capture) => max_repetitions(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().map(max_repetitions).max().unwrap_or(1)
        }
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => 1,
    }
}

impl StepSpec {
    fn read(content: StepContent) -> Result<Self> {
        let supported = ["aws:runShellScript", "aws:downloadContent"];
        ensure!(
            supported.contains(&content.action.as_str()),
            "step {}: the stand-in does not support the action {}",
            content.name,
            content.action
        );
        let platform = content
            .precondition
            .as_ref()
            .and_then(|condition| condition.pointer("/StringEquals/1"))
            .and_then(Value::as_str);
        Ok(Self {
            for_linux: platform.is_none_or(|platform| platform == "Linux"),
            name: content.name,
            action: content.action,
            inputs: content.inputs,
        })
    }

    /// Returns the inputs with every `{{ parameter }}` replaced by its value, without quotes, as SSM does.
    pub(super) fn filled(&self, parameters: &Parameters) -> Map<String, Value> {
        let inputs = self.inputs.iter();
        inputs
            .map(|(name, value)| (name.clone(), filled(value, parameters)))
            .collect()
    }
}

fn filled(value: &Value, parameters: &Parameters) -> Value {
    match value {
        Value::String(text) => Value::String(fill(text, parameters)),
        Value::Array(items) => {
            let items = items.iter().map(|item| filled(item, parameters));
            Value::Array(items.collect())
        }
        Value::Object(map) => {
            let entries = map.iter();
            let entries = entries.map(|(name, value)| (name.clone(), filled(value, parameters)));
            Value::Object(entries.collect())
        }
        other => other.clone(),
    }
}

fn fill(text: &str, parameters: &Parameters) -> String {
    let mut rest = text;
    let mut out = String::new();
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, tail)) = after.split_once("}}") else {
            break;
        };
        out.push_str(before);
        match parameters.get(name.trim()) {
            Some(values) => out.push_str(&values.join("\n")),
            // SSM does not change text that is not a parameter.
            None => {
                for part in ["{{", name, "}}"] {
                    out.push_str(part);
                }
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// Returns `timeoutSeconds` as the agent reads it: values that are not between 5 and 172,800 silently become 3,600.
pub(super) fn timeout_seconds(inputs: &Map<String, Value>) -> u32 {
    let value = inputs.get("timeoutSeconds");
    let number = match value {
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(Value::Number(number)) => number.as_u64().and_then(|n| u32::try_from(n).ok()),
        _ => None,
    };
    number.filter(|n| (5..=172_800).contains(n)).unwrap_or(3600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Document {
        let content = json!({"schemaVersion": "2.2",
            "parameters": {
                "Word": {"type": "String", "allowedPattern": "^[a-z]{1,8}$"},
                "Seconds": {"type": "String", "default": "7"}},
            "mainSteps": [{"action": "aws:runShellScript", "name": "print",
                "inputs": {"timeoutSeconds": "{{Seconds}}", "runCommand": ["echo {{ Word }}-{{Word}} {{ x }}"]}}]});
        Document::parse("print", &content).unwrap()
    }

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()]))
            .collect()
    }

    #[test]
    fn parameters_are_checked_and_filled_in_as_text() {
        let document = document();
        let values = document.check(&parameters(&[("Word", "hallo")])).unwrap();
        let inputs = document.steps[0].filled(&values);
        assert_eq!(inputs["runCommand"][0], "echo hallo-hallo {{ x }}");
        assert_eq!(timeout_seconds(&inputs), 7);
    }

    #[test]
    fn bad_parameters_are_refused_and_named() {
        let document = document();
        for (given, named) in [
            (parameters(&[]), "Word"),
            (parameters(&[("Word", "$(reboot)")]), "Word"),
            (parameters(&[("Word", "a"), ("Wort", "a")]), "Wort"),
        ] {
            let error = document.check(&given).unwrap_err();
            assert_eq!(error.code, "InvalidParameters");
            assert!(error.message.contains(named), "{}", error.message);
        }
    }

    #[test]
    fn a_pattern_that_the_agent_cannot_compile_is_refused() {
        for pattern in ["^[a-z]{1,1024}$", "^([a-z]{1,501}){0,2}$"] {
            let content = json!({"schemaVersion": "2.2", "mainSteps": [],
                "parameters": {"Word": {"type": "String", "allowedPattern": pattern}}});
            let error = format!("{:#}", Document::parse("print", &content).unwrap_err());
            assert!(error.contains("the agent's regular expressions"), "{error}");
        }
    }

    #[test]
    fn a_timeout_out_of_range_becomes_an_hour() {
        for (given, seconds) in [("4", 3600), ("172801", 3600), ("x", 3600), ("5", 5)] {
            let inputs = json!({"timeoutSeconds": given});
            assert_eq!(timeout_seconds(inputs.as_object().unwrap()), seconds);
        }
    }
}
