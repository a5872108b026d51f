//! The stand-in for AWS: each module plays one service.

pub mod autoscaling;
pub mod bus;
pub mod clock;
mod endpoint;
pub mod fault;
pub mod http;
pub mod imds;
pub mod lambda;
pub mod pattern;
pub mod s3;
pub mod ssm;
pub mod template;
pub mod world;
