//! Errors of reading an archive.

use std::io;

/// Why an archive could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The stream failed.
    #[error("cannot read the dump")]
    Read(#[source] io::Error),
    /// The stream is not a complete archive of `pg_dump`.
    #[error("{0}")]
    Malformed(String),
}

pub(super) type Result<T> = std::result::Result<T, ArchiveError>;
