//! The machines that the stand-in boots, and the programs on them: Postgres and a Docker Engine.

pub mod engine;
pub mod imds;
pub mod machine;
pub mod postgres;
