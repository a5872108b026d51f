//! Decides which S3 requests a role allows, as IAM does, from the role's inline policies.

use anyhow::{Context as _, Result};
use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::Call;

/// The only condition key that is supported.
const PREFIX: &str = "s3:prefix";

/// The S3 permissions of a role.
#[derive(Debug, Clone)]
pub struct Permissions(Vec<Statement>);

#[derive(Debug, Clone)]
struct Statement {
    allows: bool,
    actions: Vec<Regex>,
    resources: Vec<Regex>,
    conditions: Vec<Condition>,
}

/// A condition on the prefix of a listing.
#[derive(Debug, Clone)]
struct Condition {
    if_exists: bool,
    values: Vec<Regex>,
}

impl Permissions {
    /// Reads a role of a template. Managed policies are ignored: the template uses none with S3 permissions.
    pub fn of_role(role: &Value) -> Result<Self> {
        let policies = role["Properties"]["Policies"].as_array();
        let policies = policies.context("the role has no inline policies")?;
        let statements = policies
            .iter()
            .flat_map(|policy| listed(&policy["PolicyDocument"]["Statement"]))
            .filter(|statement| concerns_s3(statement));
        let read = statements.map(|statement| {
            Statement::read(statement).with_context(|| format!("in the statement {statement}"))
        });
        read.collect::<Result<_>>().map(Self)
    }

    /// Returns whether the role allows this request.
    pub(super) fn allow(&self, call: &Call) -> bool {
        let bucket = format!("arn:aws:s3:::{}", call.bucket);
        let object = format!("{bucket}/{}", call.key);
        let versioned = call.query.contains("versionId=");
        let (action, resource) = match call.operation.as_str() {
            "ListObjectsV2" | "ListObjects" | "HeadBucket" => ("s3:ListBucket", bucket),
            "ListMultipartUploads" => ("s3:ListBucketMultipartUploads", bucket),
            "ListObjectVersions" => ("s3:ListBucketVersions", bucket),
            "GetBucketLocation" => ("s3:GetBucketLocation", bucket),
            // Requests for a bucket's settings use the same method and address, so they count as these two.
            "CreateBucket" => ("s3:CreateBucket", bucket),
            "DeleteBucket" => ("s3:DeleteBucket", bucket),
            "ListBuckets" => ("s3:ListAllMyBuckets", "*".to_owned()),
            "GetObject" | "HeadObject" if versioned => ("s3:GetObjectVersion", object),
            "GetObject" | "HeadObject" => ("s3:GetObject", object),
            "DeleteObject" if versioned => ("s3:DeleteObjectVersion", object),
            "DeleteObject" => ("s3:DeleteObject", object),
            // The keys are in the body and are checked one by one: see `allow_deletion`.
            "DeleteObjects" => return true,
            "AbortMultipartUpload" => ("s3:AbortMultipartUpload", object),
            "ListParts" => ("s3:ListMultipartUploadParts", object),
            "PutObject"
            | "CopyObject"
            | "CreateMultipartUpload"
            | "UploadPart"
            | "UploadPartCopy"
            | "CompleteMultipartUpload" => ("s3:PutObject", object),
            // The stand-in does not support this operation, so no role allows it.
            _ => return false,
        };
        let prefix = call.query.contains("prefix=").then_some(&*call.key);
        self.decide(action, &resource, prefix)
    }

    /// Returns whether the role allows `DeleteObjects` to delete an object, or one of its versions.
    pub(super) fn allow_deletion(&self, bucket: &str, key: &str, versioned: bool) -> bool {
        let action = if versioned {
            "s3:DeleteObjectVersion"
        } else {
            "s3:DeleteObject"
        };
        self.decide(action, &format!("arn:aws:s3:::{bucket}/{key}"), None)
    }

    /// Returns whether S3 reports a missing object to the role. Without the permission to list, it answers `AccessDenied`.
    pub(super) fn allow_absence(&self, bucket: &str) -> bool {
        self.decide("s3:ListBucket", &format!("arn:aws:s3:::{bucket}"), None)
    }

    fn decide(&self, action: &str, resource: &str, prefix: Option<&str>) -> bool {
        let matching = |statement: &&Statement| {
            any(&statement.actions, action)
                && any(&statement.resources, resource)
                && statement.conditions.iter().all(|one| match prefix {
                    Some(prefix) => any(&one.values, prefix),
                    None => one.if_exists,
                })
        };
        let mut matching = self.0.iter().filter(matching).peekable();
        matching.peek().is_some() && matching.all(|statement| statement.allows)
    }
}

impl Statement {
    fn read(statement: &Value) -> Result<Self> {
        let patterns = |value: &Value| -> Result<Vec<Regex>> {
            listed(value).into_iter().map(pattern).collect()
        };
        let mut conditions = Vec::new();
        for (operator, keys) in statement["Condition"].as_object().into_iter().flatten() {
            let plain = operator.strip_suffix("IfExists");
            let known = plain.unwrap_or(operator) == "StringLike";
            for (key, values) in keys.as_object().into_iter().flatten() {
                anyhow::ensure!(
                    known && key == PREFIX,
                    "the condition {operator} of {key} is not supported"
                );
                conditions.push(Condition {
                    if_exists: plain.is_some(),
                    values: patterns(values)?,
                });
            }
        }
        Ok(Self {
            allows: statement["Effect"] == "Allow",
            actions: patterns(&statement["Action"])?,
            resources: patterns(&statement["Resource"])?,
            conditions,
        })
    }
}

/// Returns whether a statement names an S3 action.
fn concerns_s3(statement: &Value) -> bool {
    let actions = listed(&statement["Action"]);
    let mut actions = actions.into_iter().filter_map(Value::as_str);
    actions.any(|action| action.starts_with("s3:") || action.starts_with('*'))
}

/// Returns the elements of a policy's field, which may be a list or a single element.
fn listed(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        one => vec![one],
    }
}

/// Returns a regular expression for a text with IAM's wildcards `*` and `?`.
fn pattern(text: &Value) -> Result<Regex> {
    let text = text.as_str().context("a pattern must be a string")?;
    let escaped = regex::escape(text).replace(r"\*", ".*").replace(r"\?", ".");
    let mut builder = RegexBuilder::new(&format!("^{escaped}$"));
    let read = builder.dot_matches_new_line(true).build();
    read.with_context(|| format!("read {text:?}"))
}

fn any(patterns: &[Regex], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.is_match(text))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use serde_json::json;

    use super::*;

    fn permissions() -> Permissions {
        let statements = json!([
            {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": "arn:aws:s3:::b/own/*"},
            {"Effect": "Deny", "Action": "s3:*", "Resource": ["arn:aws:s3:::b/own/secret"]},
            {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::b",
             "Condition": {"StringLike": {"s3:prefix": "own/*"}}},
            {"Effect": "Allow", "Action": "s3:DeleteObject", "Resource": "arn:aws:s3:::b/old/*"},
            {"Effect": "Allow", "Action": "ec2:DescribeTags", "Resource": "*", "Condition": {"Bool": {"x": "true"}}},
        ]);
        let policy = json!({"PolicyDocument": {"Statement": statements}});
        Permissions::of_role(&json!({"Properties": {"Policies": [policy]}})).unwrap()
    }

    #[test]
    fn a_request_needs_an_allow_and_no_deny() {
        let permissions = permissions();
        let cases = [
            ("GET", "/b/own/x", true),
            ("HEAD", "/b/own/x", true),
            ("GET", "/b/own/x?versionId=1", false),
            ("PUT", "/b/own/x", true),
            ("POST", "/b/own/x?uploads", true),
            ("PUT", "/b/own/secret", false),
            ("GET", "/b/other/x", false),
            ("GET", "/c/own/x", false),
            ("DELETE", "/b/own/x", false),
            ("DELETE", "/b/own/x?versionId=1", false),
            ("GET", "/b?list-type=2&prefix=own%2Fa", true),
            ("GET", "/b?list-type=2&prefix=other", false),
            ("GET", "/b?list-type=2", false),
            ("PUT", "/b?lifecycle", false),
            ("GET", "/", false),
        ];
        for (method, uri, expected) in cases {
            let request = Request::builder().method(method).uri(uri);
            let call = Call::of(&request.body(Body::empty()).unwrap());
            assert_eq!(permissions.allow(&call), expected, "{method} {uri}");
        }
        assert!(!permissions.allow_absence("b"));
    }

    #[test]
    fn each_object_of_a_deletion_needs_a_permission() {
        let permissions = permissions();
        assert!(permissions.allow_deletion("b", "old/x", false));
        assert!(!permissions.allow_deletion("b", "old/x", true));
        assert!(!permissions.allow_deletion("b", "own/x", false));
        assert!(!permissions.allow_deletion("c", "old/x", false));
    }

    #[test]
    fn an_unsupported_condition_is_an_error() {
        let statement = json!({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*",
            "Condition": {"StringEquals": {"s3:x-amz-acl": "private"}}});
        let policy = json!({"PolicyDocument": {"Statement": [statement]}});
        let role = json!({"Properties": {"Policies": [policy]}});
        let error = Permissions::of_role(&role).unwrap_err();
        assert!(format!("{error:#}").contains("s3:x-amz-acl"), "{error:#}");
    }
}
