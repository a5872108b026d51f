//! The machines that the stand-in boots, and the servers on them: Postgres and a Docker Engine.
//!
//! Nothing here knows the stand-in: a machine gets the endpoint that its programs call, and nothing else.

pub mod engine;
pub mod imds;
pub mod machine;
pub mod postgres;
mod program;

pub use program::write_program;
