//! Records of an application outside its bucket: JSON in SSM parameters, with the writer's schema version.

use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::ParameterType;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failed;
use crate::error::{Error, Result};
use crate::schema::parse_versioned;

/// Returns the value of a parameter, or `None` if there is no such parameter. `schema_version` is the newest supported
/// one.
///
/// # Errors
/// [`Error::Contract`] if the value cannot be parsed or has a newer schema, [`Error::Aws`] if SSM fails.
pub(super) async fn read<T: DeserializeOwned>(
    client: &Client,
    name: &str,
    schema_version: u32,
) -> Result<Option<T>> {
    let answer = match client
        .get_parameter()
        .name(name)
        .send()
        .await
        .map_err(failed("ssm:GetParameter"))
    {
        Ok(answer) => answer,
        Err(error) if error.aws_code() == Some("ParameterNotFound") => return Ok(None),
        Err(error) => return Err(error),
    };
    let value = answer
        .parameter()
        .and_then(|parameter| parameter.value())
        .unwrap_or_default();
    parse(name, value, schema_version).map(Some)
}

/// Parses the value of a parameter. `newest` is the newest supported schema version.
pub(super) fn parse<T: DeserializeOwned>(name: &str, value: &str, newest: u32) -> Result<T> {
    parse_versioned(value.as_bytes(), &object(name), newest)
}

/// Writes a parameter.
///
/// # Errors
/// [`Error::Aws`] with the code `ParameterAlreadyExists` if it exists and `overwrite` is `false`.
pub(super) async fn put(
    client: &Client,
    name: &str,
    value: &impl Serialize,
    overwrite: bool,
) -> Result<()> {
    let value = serde_json::to_string(value)
        .map_err(|error| Error::contract(object(name), error.to_string()))?;
    client
        .put_parameter()
        .name(name)
        .value(value)
        .r#type(ParameterType::String)
        .overwrite(overwrite)
        .send()
        .await
        .map_err(failed("ssm:PutParameter"))?;
    Ok(())
}

fn object(name: &str) -> String {
    format!("the SSM parameter {name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::state::ApplicationState;

    #[test]
    fn errors_name_the_parameter_and_a_newer_schema_is_refused() {
        let read = |value| parse::<ApplicationState>("/rekindle/dtr", value, 1);
        let good = r#"{"schema_version":1,"first_backup":"20261123T021500.000Z"}"#;
        assert_eq!(read(good).unwrap().schema_version, 1);
        let cases = [
            ("", "not readable"),
            (r#"{"schema_version":1}"#, "missing field `first_backup`"),
            (
                r#"{"schema_version":2,"since":"2026"}"#,
                "newer schema version 2",
            ),
        ];
        for (value, expected) in cases {
            let error = read(value).unwrap_err().chain();
            assert!(error.starts_with("the SSM parameter /rekindle/dtr: "));
            assert!(error.contains(expected), "{error}");
        }
    }
}
