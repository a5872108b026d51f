//! The machines that the stand-in boots, and the servers on them: Postgres and a Docker Engine.
//!
//! These modules do not depend on the stand-in: a machine only gets the endpoint that its programs call.

pub mod engine;
pub mod imds;
pub mod machine;
pub mod postgres;
mod program;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

pub use program::write_program;

/// Allows every user to enter a directory: Postgres runs as a user of its own.
pub(crate) fn open_to_all(path: &Path) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("set the permissions of {}", path.display()))
}
