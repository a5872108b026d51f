//! EventBridge's event patterns: they decide which events a rule matches.
//!
//! A pattern is checked when it is read, because EventBridge refuses a wrong one at deployment.

use anyhow::{Context as _, Result, bail, ensure};
use regex::Regex;
use serde_json::{Map, Value};

/// A valid event pattern.
#[derive(Debug, Clone)]
pub struct Pattern(Node);

#[derive(Debug, Clone)]
enum Node {
    /// All of these fields must match, and any one of the alternatives.
    Object {
        fields: Vec<(String, Node)>,
        alternatives: Vec<Node>,
    },
    /// The value, or one of its elements if it is a list, must match one of these.
    Leaf(Vec<Matcher>),
}

#[derive(Debug, Clone)]
enum Matcher {
    Exact(Value),
    Exists(bool),
    /// `prefix`, `suffix`, `wildcard` and `equals-ignore-case`.
    Text(Regex),
    Numeric(Vec<(Comparison, f64)>),
    AnythingBut(Vec<Matcher>),
}

#[derive(Debug, Clone, Copy)]
enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Pattern {
    /// Reads a pattern. The error names the part that EventBridge would refuse.
    pub fn new(pattern: &Value) -> Result<Self> {
        let fields = pattern
            .as_object()
            .context("an event pattern must be an object")?;
        ensure!(!fields.is_empty(), "an event pattern must not be empty");
        Ok(Self(object(fields)?))
    }

    /// Returns whether the pattern matches an event.
    pub fn matches(&self, event: &Value) -> bool {
        self.0.matches(Some(event))
    }
}

fn object(fields: &Map<String, Value>) -> Result<Node> {
    let mut nodes = Vec::new();
    let mut alternatives = Vec::new();
    for (name, value) in fields {
        match value {
            Value::Array(list) if name == "$or" => {
                for alternative in list {
                    let fields = alternative
                        .as_object()
                        .context("$or takes a list of objects")?;
                    alternatives.push(object(fields)?);
                }
            }
            Value::Object(inner) => {
                let node = object(inner).with_context(|| format!("in {name}"))?;
                nodes.push((name.clone(), node));
            }
            Value::Array(list) => {
                ensure!(!list.is_empty(), "{name}: an empty list never matches");
                let matchers = list.iter().map(matcher).collect::<Result<_>>();
                let matchers = matchers.with_context(|| format!("in {name}"))?;
                nodes.push((name.clone(), Node::Leaf(matchers)));
            }
            other => bail!("{name}: a pattern's value is a list or an object, not {other}"),
        }
    }
    Ok(Node::Object {
        fields: nodes,
        alternatives,
    })
}

fn matcher(value: &Value) -> Result<Matcher> {
    let Value::Object(rule) = value else {
        ensure!(!value.is_array(), "a list within a list is not allowed");
        return Ok(Matcher::Exact(value.clone()));
    };
    let mut entries = rule.iter();
    let (Some((name, argument)), None) = (entries.next(), entries.next()) else {
        bail!("a matcher must have exactly one name: {value}");
    };
    Ok(match name.as_str() {
        "exists" => Matcher::Exists(argument.as_bool().context("exists takes true or false")?),
        "prefix" => Matcher::Text(text(argument, "", ".*")?),
        "suffix" => Matcher::Text(text(argument, ".*", "")?),
        "equals-ignore-case" => {
            let literal = argument
                .as_str()
                .context("equals-ignore-case takes a string")?;
            Matcher::Text(regex(true, &regex::escape(literal))?)
        }
        "wildcard" => {
            let pattern = argument.as_str().context("wildcard takes a string")?;
            ensure!(
                !pattern.contains("**"),
                "wildcard takes no consecutive asterisks"
            );
            let parts: Vec<String> = pattern.split('*').map(regex::escape).collect();
            Matcher::Text(regex(false, &parts.join(".*"))?)
        }
        "numeric" => Matcher::Numeric(comparisons(argument)?),
        "anything-but" => Matcher::AnythingBut(match argument {
            Value::Array(list) => list.iter().map(matcher).collect::<Result<_>>()?,
            Value::Object(rule) => lists_within(rule)?,
            one => vec![matcher(one)?],
        }),
        other => bail!("there is no matcher {other:?} in the stand-in"),
    })
}

/// Reads `{"prefix": ["a", "b"]}` or `{"prefix": "a"}` within `anything-but`.
fn lists_within(rule: &Map<String, Value>) -> Result<Vec<Matcher>> {
    let mut matchers = Vec::new();
    for (name, argument) in rule {
        let arguments = match argument {
            Value::Array(list) => list.clone(),
            one => vec![one.clone()],
        };
        for argument in arguments {
            matchers.push(matcher(&serde_json::json!({ name.as_str(): argument }))?);
        }
    }
    Ok(matchers)
}

/// Returns a regular expression for a string, or for `{"equals-ignore-case": …}`, between two patterns.
fn text(argument: &Value, before: &str, after: &str) -> Result<Regex> {
    let (literal, ignore_case) = match argument {
        Value::String(literal) => (literal.as_str(), false),
        Value::Object(rule) => {
            let literal = rule.get("equals-ignore-case").and_then(Value::as_str);
            (
                literal.context("takes a string, or equals-ignore-case")?,
                true,
            )
        }
        other => bail!("takes a string, not {other}"),
    };
    regex(
        ignore_case,
        &format!("{before}{}{after}", regex::escape(literal)),
    )
}

fn regex(ignore_case: bool, pattern: &str) -> Result<Regex> {
    let flags = if ignore_case { "(?si)" } else { "(?s)" };
    Ok(Regex::new(&format!("{flags}^(?:{pattern})$"))?)
}

fn comparisons(argument: &Value) -> Result<Vec<(Comparison, f64)>> {
    let list = argument.as_array().context("numeric takes a list")?;
    ensure!(
        matches!(list.len(), 2 | 4),
        "numeric takes one or two comparisons: {argument}"
    );
    let mut comparisons = Vec::new();
    for pair in list.chunks(2) {
        let comparison = match pair[0].as_str() {
            Some("=") => Comparison::Equal,
            Some("<") => Comparison::Less,
            Some("<=") => Comparison::LessOrEqual,
            Some(">") => Comparison::Greater,
            Some(">=") => Comparison::GreaterOrEqual,
            _ => bail!("numeric has no operator {}", pair[0]),
        };
        comparisons.push((
            comparison,
            pair[1].as_f64().context("numeric compares with a number")?,
        ));
    }
    Ok(comparisons)
}

impl Node {
    fn matches(&self, value: Option<&Value>) -> bool {
        match self {
            Self::Object {
                fields,
                alternatives,
            } => {
                // A list matches if one of its elements does.
                if let Some(Value::Array(list)) = value {
                    return list.iter().any(|element| self.matches(Some(element)));
                }
                let all = fields
                    .iter()
                    .all(|(name, node)| node.matches(value.and_then(|value| value.get(name))));
                all && (alternatives.is_empty()
                    || alternatives.iter().any(|node| node.matches(value)))
            }
            Self::Leaf(matchers) => matchers.iter().any(|matcher| matcher.matches(value)),
        }
    }
}

impl Matcher {
    fn matches(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            // An empty list counts as absent, and an object is not a leaf.
            (Self::Exists(wanted), value) => {
                let leaf = value.is_some_and(|value| match value {
                    Value::Object(_) => false,
                    Value::Array(list) => !list.is_empty(),
                    _ => true,
                });
                leaf == *wanted
            }
            (_, None) => false,
            (Self::AnythingBut(refused), Some(Value::Array(list))) => list
                .iter()
                .any(|element| !refused.iter().any(|matcher| matcher.matches(Some(element)))),
            (_, Some(Value::Array(list))) => list.iter().any(|element| self.matches(Some(element))),
            (Self::Exact(Value::Number(wanted)), Some(Value::Number(value))) => {
                wanted.as_f64() == value.as_f64()
            }
            (Self::Exact(wanted), Some(value)) => wanted == value,
            (Self::Text(regex), Some(value)) => {
                value.as_str().is_some_and(|text| regex.is_match(text))
            }
            (Self::Numeric(comparisons), Some(value)) => value.as_f64().is_some_and(|number| {
                comparisons
                    .iter()
                    .all(|&(comparison, bound)| comparison.holds(number, bound))
            }),
            (Self::AnythingBut(refused), Some(value)) => {
                !value.is_object() && !refused.iter().any(|matcher| matcher.matches(Some(value)))
            }
        }
    }
}

impl Comparison {
    fn holds(self, number: f64, bound: f64) -> bool {
        match self {
            // EventBridge compares six decimals.
            Self::Equal => (number - bound).abs() < 5e-7,
            Self::Less => number < bound,
            Self::LessOrEqual => number <= bound,
            Self::Greater => number > bound,
            Self::GreaterOrEqual => number >= bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matches(pattern: &Value, event: &Value) -> bool {
        Pattern::new(pattern).unwrap().matches(event)
    }

    /// The event in AWS's documentation of event patterns.
    fn terminated() -> Value {
        json!({
            "version": "0", "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
            "detail-type": "EC2 Instance State-change Notification", "source": "aws.ec2",
            "account": "111122223333", "time": "2017-12-22T18:43:48Z", "region": "us-west-1",
            "resources": ["arn:aws:ec2:us-west-1:123456789012:instance/i-1234567890abcdef0"],
            "detail": {"instance-id": "i-1234567890abcdef0", "state": "terminated"}
        })
    }

    #[test]
    fn the_documented_patterns_match_the_documented_event() {
        for pattern in [
            json!({"source": ["aws.ec2"]}),
            json!({"source": ["aws.ec2"], "detail-type": ["EC2 Instance State-change Notification"],
                   "detail": {"state": ["terminated"]}}),
            json!({"detail": {"state": ["stopped", "terminated"]}}),
            json!({"time": [{"prefix": "2017-12-22"}]}),
            json!({"detail": {"state": [{"anything-but": "initializing"}]}}),
            json!({"detail": {"state": [{"anything-but": {"prefix": "init"}}]}}),
            json!({"detail": {"state": [{"anything-but": ["stopped", "overloaded"]}]}}),
            json!({"detail": {"state": [{"exists": true}]}}),
            json!({"detail": {"c-count": [{"exists": false}]}}),
            json!({"resources": [{"suffix": "abcdef0"}]}),
            json!({"resources": [{"wildcard": "arn:aws:ec2:*:123456789012:instance/*"}]}),
            json!({"detail-type": [{"equals-ignore-case": "ec2 instance State-Change notification"}]}),
            json!({"detail-type": [{"prefix": {"equals-ignore-case": "ec2 instance"}}]}),
            json!({"$or": [{"source": ["aws.ssm"]}, {"region": ["us-west-1"]}]}),
        ] {
            assert!(matches(&pattern, &terminated()), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_for_other_events_does_not_match() {
        for pattern in [
            json!({"source": ["aws.ssm"]}),
            json!({"source": ["aws.ec2"], "detail": {"state": ["running"]}}),
            json!({"source": ["aws"]}),
            json!({"source": ["AWS.EC2"]}),
            json!({"detail": {"State": ["terminated"]}}),
            json!({"detail": {"state": [{"anything-but": ["terminated"]}]}}),
            json!({"detail": {"state": [{"anything-but": {"suffix": ["ed", "ing"]}}]}}),
            json!({"detail": {"state": [{"exists": false}]}}),
            json!({"detail": {"missing": [{"anything-but": "x"}]}}),
            json!({"source": ["aws.ec2"], "$or": [{"region": ["a"]}, {"region": ["b"]}]}),
            json!({"detail": ["terminated"]}),
        ] {
            assert!(!matches(&pattern, &terminated()), "{pattern}");
        }
    }

    #[test]
    fn numbers_are_compared_as_documented() {
        let event =
            json!({"detail": {"c-count": 3, "d-count": 8.5, "x-limit": 3.018e2, "text": "3"}});
        let pattern = json!({"detail": {
            "c-count": [{"numeric": [">", 0, "<=", 5]}],
            "d-count": [{"numeric": ["<", 10]}],
            "x-limit": [{"numeric": ["=", 301.8]}]
        }});
        assert!(matches(&pattern, &event));
        assert!(!matches(
            &json!({"detail": {"c-count": [{"numeric": [">", 3]}]}}),
            &event
        ));
        assert!(!matches(
            &json!({"detail": {"text": [{"numeric": ["=", 3]}]}}),
            &event
        ));
        assert!(!matches(&json!({"detail": {"text": [3]}}), &event));
        assert!(matches(&json!({"detail": {"c-count": [3.0]}}), &event));
    }

    #[test]
    fn null_and_empty_strings_are_values() {
        let event = json!({"detail": {"responseElements": null, "eventVersion": ""}});
        assert!(matches(
            &json!({"detail": {"responseElements": [null]}}),
            &event
        ));
        assert!(matches(&json!({"detail": {"eventVersion": [""]}}), &event));
        assert!(!matches(
            &json!({"detail": {"eventVersion": [null]}}),
            &event
        ));
    }

    #[test]
    fn a_pattern_that_eventbridge_refuses_is_refused() {
        for (pattern, reason) in [
            (json!({}), "must not be empty"),
            (json!({"source": "aws.ec2"}), "is a list or an object"),
            (json!({"source": []}), "an empty list never matches"),
            (
                json!({"source": [{"perfix": "aws"}]}),
                "no matcher \"perfix\"",
            ),
            (json!({"n": [{"numeric": ["~", 3]}]}), "no operator"),
            (
                json!({"s": [{"wildcard": "a**"}]}),
                "no consecutive asterisks",
            ),
        ] {
            let error = format!("{:#}", Pattern::new(&pattern).unwrap_err());
            assert!(error.contains(reason), "{pattern}: {error}");
        }
    }
}
