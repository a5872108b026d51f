//! Resolves `CloudFormation`'s intrinsic functions, as far as that is possible before a deployment.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::{READ, empty, text};

/// A template with long forms (`{"Ref": …}`) instead of short ones (`!Ref`), and the values of its parameters.
pub(super) struct Resolver {
    template: Value,
    parameters: BTreeMap<String, Value>,
}

/// The properties with a resource's physical name, which `Ref` returns.
const NAMES: [&str; 5] = [
    "Name",
    "BucketName",
    "FunctionName",
    "AutoScalingGroupName",
    "TopicName",
];

const REGION: &str = "eu-central-1";
const ACCOUNT: &str = "123456789012";

impl Resolver {
    /// Reads a template with these parameters, and with the defaults of the others.
    pub(super) fn new(template: &str, given: &BTreeMap<String, String>) -> Result<Self> {
        let yaml: yaml_serde::Value = yaml_serde::from_str(template).context("read the YAML")?;
        let template = plain(yaml)?;
        let mut parameters = pseudo_parameters();
        for (name, declared) in template["Parameters"].as_object().into_iter().flatten() {
            let value = given
                .get(name)
                .cloned()
                .or_else(|| text(&declared["Default"]));
            // A parameter without a value is an error only if something refers to it.
            let Some(value) = value else { continue };
            let kind = text(&declared["Type"]).unwrap_or_default();
            let list = kind == "CommaDelimitedList" || kind.starts_with("List<");
            let value = if list {
                value
                    .split(',')
                    .map(|item| Value::from(item.trim()))
                    .collect()
            } else {
                Value::from(value)
            };
            parameters.insert(name.clone(), value);
        }
        for (name, value) in given {
            // Pseudo parameters are not declared in the template.
            let declared =
                template["Parameters"].get(name).is_some() || parameters.contains_key(name);
            ensure!(declared, "the template has no parameter {name}");
            parameters.entry(name.clone()).and_modify(|known| {
                if name.starts_with("AWS::") {
                    *known = Value::from(value.clone());
                }
            });
        }
        Ok(Self {
            template,
            parameters,
        })
    }

    /// Returns every resource whose condition holds, resolved. Resources that the stand-in does not read are left out if
    /// they cannot be resolved before a deployment.
    pub(super) fn resources(&self) -> Result<BTreeMap<String, Value>> {
        let mut resources = BTreeMap::new();
        for (name, resource) in self.template["Resources"].as_object().into_iter().flatten() {
            if let Some(condition) = text(&resource["Condition"])
                && !self.condition(&condition)?
            {
                continue;
            }
            let kind = text(&resource["Type"]).unwrap_or_default();
            match self.resolve(resource) {
                Ok(resolved) => {
                    resources.insert(name.clone(), resolved.unwrap_or_else(empty));
                }
                Err(error) if READ.contains(&kind.as_str()) => {
                    return Err(error.context(format!("in {name}")));
                }
                Err(_) => {}
            }
        }
        Ok(resources)
    }

    /// Returns the common properties of all functions.
    pub(super) fn globals(&self) -> Result<Value> {
        let globals = self
            .resolve(&self.template["Globals"]["Function"])
            .context("in Globals")?;
        Ok(globals.unwrap_or_else(empty))
    }

    /// Resolves a value. Returns `None` if it is `AWS::NoValue`.
    fn resolve(&self, value: &Value) -> Result<Option<Value>> {
        match value {
            Value::Object(fields) => self.resolve_object(fields),
            Value::Array(list) => {
                let mut resolved = Vec::new();
                for element in list {
                    resolved.extend(self.resolve(element)?);
                }
                Ok(Some(Value::Array(resolved)))
            }
            scalar => Ok(Some(scalar.clone())),
        }
    }

    fn resolve_object(&self, fields: &Map<String, Value>) -> Result<Option<Value>> {
        if fields.len() == 1
            && let Some((name, argument)) = fields.iter().next()
            && (name == "Ref" || name.starts_with("Fn::"))
        {
            return self
                .call(name, argument)
                .with_context(|| format!("in {name} of {argument}"));
        }
        let mut resolved = Map::new();
        for (name, value) in fields {
            if let Some(value) = self.resolve(value)? {
                resolved.insert(name.clone(), value);
            }
        }
        Ok(Some(Value::Object(resolved)))
    }

    /// Resolves a call of an intrinsic function.
    fn call(&self, function: &str, argument: &Value) -> Result<Option<Value>> {
        let list = argument.as_array().map(Vec::as_slice).unwrap_or_default();
        let value = match (function, list) {
            ("Ref", _) => return self.reference(argument.as_str().context("Ref takes a name")?),
            ("Fn::If", [condition, then, otherwise]) => {
                let condition = condition
                    .as_str()
                    .context("Fn::If takes a condition's name")?;
                let chosen = if self.condition(condition)? {
                    then
                } else {
                    otherwise
                };
                return self.resolve(chosen);
            }
            ("Fn::Sub", []) => self.substitute(
                argument.as_str().context("Fn::Sub takes a string")?,
                &empty(),
            )?,
            ("Fn::Sub", [template, variables]) => {
                let template = template.as_str().context("Fn::Sub takes a string")?;
                let variables = self.resolve(variables)?.unwrap_or_else(empty);
                self.substitute(template, &variables)?
            }
            ("Fn::GetAtt", [resource, attribute]) => {
                Self::attribute(&self.text(resource)?, &self.text(attribute)?)
            }
            ("Fn::GetAtt", []) => {
                let dotted = argument.as_str().and_then(|text| text.split_once('.'));
                let (resource, attribute) =
                    dotted.context("Fn::GetAtt takes a resource and an attribute")?;
                Self::attribute(resource, attribute)
            }
            ("Fn::Join", [separator, parts]) => self.join(separator, parts)?,
            ("Fn::Split", [separator, whole]) => {
                let (separator, whole) = (self.text(separator)?, self.text(whole)?);
                whole.split(&separator).map(Value::from).collect()
            }
            ("Fn::Select", [index, choices]) => self.select(index, choices)?,
            ("Fn::FindInMap", [map, first, second, ..]) => self.find_in_map(map, first, second)?,
            ("Fn::Base64", _) => {
                use base64::Engine as _;
                Value::from(base64::engine::general_purpose::STANDARD.encode(self.text(argument)?))
            }
            ("Fn::GetAZs", _) => ["a", "b", "c"]
                .map(|zone| format!("{REGION}{zone}"))
                .into_iter()
                .collect(),
            // The value exists only after a deployment, and nothing that the stand-in reads needs it.
            _ => json!(format!("{function} {argument}")),
        };
        Ok(Some(value))
    }

    fn join(&self, separator: &Value, parts: &Value) -> Result<Value> {
        let parts = self.list(parts)?;
        let parts = parts
            .iter()
            .map(|part| self.text(part))
            .collect::<Result<Vec<_>>>()?;
        Ok(Value::from(parts.join(&self.text(separator)?)))
    }

    fn select(&self, index: &Value, choices: &Value) -> Result<Value> {
        let index: usize = self.text(index)?.parse()?;
        let choices = self.list(choices)?;
        choices
            .get(index)
            .cloned()
            .with_context(|| format!("there is no element {index}"))
    }

    fn find_in_map(&self, map: &Value, first: &Value, second: &Value) -> Result<Value> {
        let (map, first, second) = (self.text(map)?, self.text(first)?, self.text(second)?);
        let found = self.template["Mappings"][&map][&first].get(&second);
        found
            .cloned()
            .with_context(|| format!("{map} has no {first}, {second}"))
    }

    /// Resolves `Ref`: a parameter's value or a resource's physical name.
    fn reference(&self, name: &str) -> Result<Option<Value>> {
        if name == "AWS::NoValue" {
            return Ok(None);
        }
        if let Some(value) = self.parameters.get(name) {
            return Ok(Some(value.clone()));
        }
        if let Some(resource) = self.template["Resources"].get(name) {
            return self.physical_name(name, resource).map(Some);
        }
        if self.template["Parameters"].get(name).is_some() {
            bail!("the parameter {name} has no default: give it a value");
        }
        // SAM creates additional resources, such as <function>Role.
        Ok(Some(Value::from(name)))
    }

    /// Returns a resource's physical name, or its logical id if the template gives it no name.
    fn physical_name(&self, logical_id: &str, resource: &Value) -> Result<Value> {
        for property in NAMES {
            if let Some(name) = resource["Properties"].get(property)
                && let Some(name) = self.resolve(name)?
            {
                return Ok(name);
            }
        }
        Ok(Value::from(logical_id))
    }

    /// Returns a placeholder for an attribute: its value exists only after a deployment.
    fn attribute(resource: &str, attribute: &str) -> Value {
        Value::from(format!("{resource}.{attribute}"))
    }

    fn substitute(&self, template: &str, variables: &Value) -> Result<Value> {
        let mut result = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').context("${ is never closed")?;
            result.push_str(before);
            rest = after;
            if let Some(literal) = name.strip_prefix('!') {
                result.extend(["${", literal, "}"]);
            } else if let Some(value) = variables.get(name) {
                result.push_str(&self.text(value)?);
            } else if let Some((resource, attribute)) = name.split_once('.') {
                result.push_str(&self.text(&Self::attribute(resource, attribute))?);
            } else {
                result.push_str(&self.text(&json!({ "Ref": name }))?);
            }
        }
        result.push_str(rest);
        Ok(Value::from(result))
    }

    fn text(&self, value: &Value) -> Result<String> {
        let resolved = self.resolve(value)?.unwrap_or_default();
        text(&resolved).with_context(|| format!("{value} is not a string"))
    }

    fn list(&self, value: &Value) -> Result<Vec<Value>> {
        match self.resolve(value)? {
            Some(Value::Array(list)) => Ok(list),
            other => bail!("{value} is not a list but {other:?}"),
        }
    }

    fn condition(&self, name: &str) -> Result<bool> {
        let condition = self.template["Conditions"].get(name);
        let condition = condition.with_context(|| format!("there is no condition {name}"))?;
        self.holds(condition)
            .with_context(|| format!("in the condition {name}"))
    }

    fn holds(&self, condition: &Value) -> Result<bool> {
        let mut entries = condition.as_object().into_iter().flatten();
        let (name, argument) = entries
            .next()
            .with_context(|| format!("{condition} is not a condition"))?;
        let list = argument.as_array().map(Vec::as_slice).unwrap_or_default();
        let all = || {
            list.iter()
                .map(|part| self.holds(part))
                .collect::<Result<Vec<_>>>()
        };
        match (name.as_str(), list) {
            ("Fn::Equals", [left, right]) => {
                let resolved = |side| -> Result<Value> {
                    let value = self.resolve(side)?.unwrap_or_default();
                    Ok(text(&value).map_or(value, Value::from))
                };
                Ok(resolved(left)? == resolved(right)?)
            }
            ("Fn::Not", [inner]) => Ok(!self.holds(inner)?),
            ("Fn::And", _) => Ok(all()?.into_iter().all(|part| part)),
            ("Fn::Or", _) => Ok(all()?.into_iter().any(|part| part)),
            ("Condition", _) => {
                self.condition(argument.as_str().context("Condition takes a name")?)
            }
            _ => bail!("{condition} is not a condition that the stand-in supports"),
        }
    }
}

fn pseudo_parameters() -> BTreeMap<String, Value> {
    [
        ("AWS::Region", REGION),
        ("AWS::AccountId", ACCOUNT),
        ("AWS::Partition", "aws"),
        ("AWS::URLSuffix", "amazonaws.com"),
        ("AWS::StackName", "rekindle"),
        (
            "AWS::StackId",
            "arn:aws:cloudformation:eu-central-1:123456789012:stack/rekindle/0",
        ),
    ]
    .map(|(name, value)| (name.to_owned(), Value::from(value)))
    .into()
}

/// Turns YAML into JSON, and short forms such as `!Ref x` into long ones such as `{"Ref": "x"}`.
fn plain(value: yaml_serde::Value) -> Result<Value> {
    Ok(match value {
        yaml_serde::Value::Tagged(tagged) => {
            let tag = tagged.tag.to_string();
            let name = tag.trim_start_matches('!');
            let name = match name {
                "Ref" | "Condition" => name.to_owned(),
                other => format!("Fn::{other}"),
            };
            let argument = plain(tagged.value)?;
            json!({ name: argument })
        }
        yaml_serde::Value::Mapping(mapping) => {
            let mut fields = Map::new();
            for (key, value) in mapping {
                let key = text(&plain(key)?).context("a key is not a string")?;
                fields.insert(key, plain(value)?);
            }
            Value::Object(fields)
        }
        yaml_serde::Value::Sequence(list) => {
            Value::Array(list.into_iter().map(plain).collect::<Result<_>>()?)
        }
        scalar => serde_json::to_value(scalar)?,
    })
}
