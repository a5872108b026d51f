//! A local stand-in for AWS, as thin as it can be: it runs the shipped Lambda binaries and the shipped agent, on
//! real Postgres clusters, behind the real wire protocols. It is a test double and never goes to AWS.
//!
//! [`world`] puts it together; each other module stands in for one thing.

pub mod autoscaling;
pub mod bench;
pub mod bus;
pub mod chaos;
pub mod clock;
pub mod containers;
mod endpoint;
pub mod engine;
pub mod fault;
pub mod fuzz;
pub mod http;
pub mod imds;
pub mod interruption;
pub mod lambda;
pub mod model;
pub mod node;
pub mod pattern;
pub mod postgres;
pub mod protected;
pub mod registry;
pub mod s3;
pub mod spare;
pub mod ssm;
pub mod story;
pub mod template;
pub mod wait;
pub mod world;
