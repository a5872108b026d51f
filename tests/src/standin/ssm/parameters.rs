//! SSM's Parameter Store, with the operations that Rekindle uses.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::command::seconds;
use super::request::{page, text, whole};
use crate::standin::autoscaling::ACCOUNT;
use crate::standin::clock;
use crate::standin::fault::{ApiError, ApiResult};

/// The parameters of one region.
#[derive(Debug, Default)]
pub(super) struct ParameterStore {
    parameters: BTreeMap<String, Parameter>,
}

#[derive(Debug)]
struct Parameter {
    value: String,
    kind: String,
    version: u32,
    modified: OffsetDateTime,
}

impl ParameterStore {
    /// Answers `PutParameter`.
    pub(super) fn put(&mut self, request: &Value) -> ApiResult<Value> {
        let name = text(request, "Name")?;
        let value = text(request, "Value")?;
        let overwrite = request["Overwrite"].as_bool().unwrap_or_default();
        let known = self.parameters.get(name);
        if known.is_some() && !overwrite {
            return Err(ApiError::new(
                "ParameterAlreadyExists",
                "The parameter already exists. To overwrite this value, set the overwrite option in the \
                 request to true.",
            ));
        }
        let version = known.map_or(1, |known| known.version + 1);
        let kind = request["Type"].as_str().map(str::to_owned);
        let kind = kind.or_else(|| known.map(|known| known.kind.clone()));
        let parameter = Parameter {
            value: value.to_owned(),
            kind: kind.unwrap_or_else(|| "String".to_owned()),
            version,
            modified: clock::now(),
        };
        self.parameters.insert(name.to_owned(), parameter);
        Ok(json!({"Version": version, "Tier": "Standard"}))
    }

    /// Answers `GetParameter`.
    pub(super) fn get(&self, request: &Value, region: &str) -> ApiResult<Value> {
        let name = text(request, "Name")?;
        let parameter = self.parameters.get(name);
        let parameter = parameter.ok_or_else(|| not_found(name))?;
        Ok(json!({"Parameter": parameter.json(name, region)}))
    }

    /// Answers `DeleteParameter`.
    pub(super) fn delete(&mut self, request: &Value) -> ApiResult<Value> {
        let name = text(request, "Name")?;
        let removed = self.parameters.remove(name);
        removed.map(|_| json!({})).ok_or_else(|| not_found(name))
    }

    /// Answers `GetParametersByPath`.
    pub(super) fn by_path(&self, request: &Value, region: &str) -> ApiResult<Value> {
        let path = text(request, "Path")?.trim_end_matches('/');
        let recursive = request["Recursive"].as_bool().unwrap_or_default();
        let size = whole(request, "MaxResults", 1..=10, 10)?;
        let below = |name: &str| {
            let rest = name
                .strip_prefix(path)
                .and_then(|rest| rest.strip_prefix('/'));
            rest.is_some_and(|rest| recursive || !rest.contains('/'))
        };
        let found = self.parameters.iter().filter(|(name, _)| below(name));
        let found = found.map(|(name, parameter)| parameter.json(name, region));
        let (parameters, next) = page(found.collect(), size, request)?;
        Ok(json!({"Parameters": parameters, "NextToken": next}))
    }
}

impl Parameter {
    fn json(&self, name: &str, region: &str) -> Value {
        let slash = if name.starts_with('/') { "" } else { "/" };
        json!({
            "Name": name,
            "Type": self.kind,
            "Value": self.value,
            "Version": self.version,
            "LastModifiedDate": seconds(self.modified),
            "ARN": format!("arn:aws:ssm:{region}:{ACCOUNT}:parameter{slash}{name}"),
            "DataType": "text",
        })
    }
}

fn not_found(name: &str) -> ApiError {
    ApiError::new("ParameterNotFound", format!("Parameter {name} not found."))
}
