//! A local stand-in for AWS, as thin as it can be: it runs the shipped Lambda binaries and the shipped agent, on
//! real Postgres clusters, behind the real wire protocols. It is a test double and never goes to AWS.
//!
//! [`standin::StandIn`] puts it together; each other module stands in for one thing.

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
pub mod standin;
pub mod wait;
