//! Exceptions of a restore: what the server refused to restore other than rows, which are all there.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::id::BackupId;
use crate::operation::Operation;

/// The most exceptions that a report lists. The object in S3 has all of them.
const MOST_REPORTED: usize = 3;

/// Something that a restored node lacks, because the server refused its statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// The database, or `None` if it concerns the whole cluster.
    pub database: Option<String>,
    /// The kind of object, such as `INDEX` or `EVENT TRIGGER OWNER`.
    pub kind: String,
    /// The object's name.
    pub object: String,
    /// The server's error, without secrets.
    pub error: String,
    /// The details of the error, and the server's hint. They can contain values of rows, so only the object in S3 has them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
    /// The SQL to run once the cause is removed.
    pub remedy: String,
}

/// The object with all exceptions of one restore, beside the objects of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExceptionsRecord {
    /// The operation that restored the backup.
    pub operation_id: Operation,
    /// The backup.
    pub backup_id: BackupId,
    /// When it was restored.
    #[serde(with = "time::serde::rfc3339")]
    pub restored_at: OffsetDateTime,
    /// The exceptions, in the order in which the restore met them.
    pub exceptions: Vec<Exception>,
}

/// The exceptions of a restore as its report has them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReportedExceptions {
    /// The number of exceptions.
    pub count: u64,
    /// The key of the object in S3 that has all of them, or `None` if it could not be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The first exceptions, each as one text.
    pub first: Vec<String>,
}

impl Exception {
    /// Returns the exception in one text, without its details and its remedy.
    pub fn text(&self) -> String {
        let place = match &self.database {
            Some(database) => format!(" in database {database}"),
            None => String::new(),
        };
        format!("{} {}{place}: {}", self.kind, self.object, self.error)
    }
}

impl ReportedExceptions {
    /// Returns the report's part for these exceptions.
    pub fn new(exceptions: &[Exception], key: Option<String>) -> Self {
        Self {
            count: exceptions.len() as u64,
            key,
            first: exceptions
                .iter()
                .take(MOST_REPORTED)
                .map(Exception::text)
                .collect(),
        }
    }

    /// Returns whether there are no exceptions.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the reason for an ERROR line: the number, the first exceptions, and where the others are.
    pub fn reason(&self) -> String {
        let place = match &self.key {
            Some(key) => format!("all of them, with the SQL that remedies each, are in {key}"),
            None => "the object with all of them could not be written; the node's log has them"
                .to_owned(),
        };
        let count = match self.count {
            1 => "1 exception".to_owned(),
            count => format!("{count} exceptions"),
        };
        format!("{count}: {}; {place}", self.first.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_the_number_and_the_first_exceptions() {
        let exceptions: Vec<Exception> = (0..5)
            .map(|number| Exception {
                database: Some("shop".to_owned()),
                kind: "INDEX".to_owned(),
                object: format!("public.i{number}"),
                error: "ERROR: no (SQLSTATE 42883)".to_owned(),
                details: "DETAIL: Key (n)=(1)".to_owned(),
                remedy: "CREATE INDEX".to_owned(),
            })
            .collect();
        let reported = ReportedExceptions::new(&exceptions, Some("backups/x".to_owned()));
        assert_eq!(
            reported.reason(),
            "5 exceptions: INDEX public.i0 in database shop: ERROR: no (SQLSTATE 42883); \
             INDEX public.i1 in database shop: ERROR: no (SQLSTATE 42883); \
             INDEX public.i2 in database shop: ERROR: no (SQLSTATE 42883); \
             all of them, with the SQL that remedies each, are in backups/x"
        );
    }
}
