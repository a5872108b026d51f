//! The machines that the stand-in boots, and the servers on them: Postgres and a Docker Engine.
//!
//! These modules do not depend on the stand-in: a machine only gets the endpoint that its programs call.

pub mod engine;
pub mod imds;
pub mod machine;
pub mod postgres;
mod program;

pub use program::write_program;
pub(crate) use program::{open_to_all, process_ids};
