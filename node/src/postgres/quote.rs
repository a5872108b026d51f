//! Quotes names and texts for SQL and for connection strings.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use crate::postgres::encoding;

/// Returns a connection string that names the database. A client would parse a bare name as a connection string if it
/// contains `=` or begins with `postgres://`.
pub(crate) fn connection_string(database: &str) -> OsString {
    OsString::from_vec(encoding::encode(&parameter("dbname", database)))
}

/// Returns a connection string that names the database and sets the session's options. They replace `PGOPTIONS`.
pub(crate) fn connection_string_with_options(database: &str, options: &str) -> OsString {
    let mut connection = connection_string(database);
    connection.push(" ");
    connection.push(parameter("options", options));
    connection
}

fn parameter(name: &str, value: &str) -> String {
    format!(
        "{name}='{}'",
        value.replace('\\', "\\\\").replace('\'', "\\'")
    )
}

/// Quotes a name for SQL.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a text for SQL. The result does not depend on `standard_conforming_strings`.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}
