//! Documents with the schema version of their writer: indexes, manifests and SSM parameters.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// The beginning of the text by which [`is_newer_schema`] recognises a document that must not be skipped.
const NEWER_SCHEMA: &str = "newer schema version";

/// Returns whether a document could not be parsed because a newer version of Rekindle wrote it. A fallback to an older
/// backup would lose data that the newer version can restore.
pub fn is_newer_schema(error: &Error) -> bool {
    matches!(error, Error::Contract { problem, .. } if problem.starts_with(NEWER_SCHEMA))
}

/// Parses a document. `object` is its name for errors, `newest` the newest supported schema version.
///
/// # Errors
/// [`Error::Contract`] if it cannot be parsed, or has a newer schema than this version of Rekindle reads.
pub(crate) fn parse_versioned<T: DeserializeOwned>(
    bytes: &[u8],
    object: &str,
    newest: u32,
) -> Result<T> {
    #[derive(Deserialize)]
    struct Version {
        schema_version: u32,
    }
    let unreadable =
        |error: serde_json::Error| Error::contract(object, format!("not readable: {error}"));
    let Version { schema_version } = serde_json::from_slice(bytes).map_err(unreadable)?;
    // A newer schema may have any fields, so the version is checked first.
    if schema_version > newest {
        let problem = format!(
            "{NEWER_SCHEMA} {schema_version}, this version of Rekindle reads up to {newest}; deploy the newer version again"
        );
        return Err(Error::contract(object, problem));
    }
    serde_json::from_slice(bytes).map_err(unreadable)
}
