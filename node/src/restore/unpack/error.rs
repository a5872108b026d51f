//! Errors of unpacking an archive.

use std::io;
use std::path::Path;

use crate::files::shown;

/// Why an archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive is not one that the agent writes. Another backup may be usable.
    #[error("the configuration archive {0}")]
    Archive(String),
    /// A file could not be written.
    #[error("cannot restore {path}")]
    Write {
        path: String,
        #[source]
        source: io::Error,
    },
    /// The archive could not be read.
    #[error("cannot read the configuration archive")]
    Read(#[source] io::Error),
}

pub(super) type Result<T> = std::result::Result<T, UnpackError>;

impl UnpackError {
    /// Returns the error for a file that could not be written.
    pub(super) fn write(path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Write {
            path: shown(path),
            source: source.into(),
        }
    }

    /// Returns the error for an entry that is refused.
    pub(super) fn refused(name: &Path, problem: &str) -> Self {
        let name = shown(name);
        Self::Archive(format!("is refused: the entry {name:?} {problem}"))
    }
}
