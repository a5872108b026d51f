//! The stand-in for AWS: each module plays one service.

mod assembly;
pub mod autoscaling;
pub mod bus;
pub mod clock;
mod endpoint;
pub mod fault;
pub mod lambda;
pub mod pattern;
pub mod s3;
pub mod ssm;
pub mod template;

pub use assembly::{APPLICATION_TAG, Binaries, ProtectedGroup, StandIn, StandInBuilder, UserData};
