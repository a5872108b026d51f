//! The end-to-end tests of Rekindle, and a local stand-in for AWS. It runs the shipped Lambda binaries and the shipped
//! agent, on real Postgres clusters, behind the real wire protocols. It is a test double and never calls AWS.
//!
//! - [`nodes`]: the machines, and the Postgres servers and Docker Engines on them.
//! - [`standin`]: AWS. It also lists all faults that a test can inject.
//! - [`fixtures`]: applications and protected groups for the end-to-end tests.
//! - [`demo`], [`chaos`], [`mod@bench`], [`fuzz`], [`model`]: the demonstration, fault injection, measurements, fuzzing and
//!   model checking.

pub mod bench;
pub mod chaos;
pub mod demo;
pub mod fixtures;
pub mod fuzz;
pub mod http;
pub mod interruption;
pub(crate) mod lock;
pub mod model;
pub mod nodes;
pub mod output;
pub mod redaction;
pub mod repository;
pub mod standin;
pub mod wait;
