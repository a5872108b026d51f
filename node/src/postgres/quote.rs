//! Quotes names and texts for SQL and for connection strings.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use crate::postgres::encoding;

/// Returns a connection string that names the database. A client would parse a bare name as a connection string if it
/// contains `=` or begins with `postgres://`.
pub(crate) fn connection_string(database: &str) -> OsString {
    let quoted = database.replace('\\', "\\\\").replace('\'', "\\'");
    OsString::from_vec(encoding::encode(&format!("dbname='{quoted}'")))
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
