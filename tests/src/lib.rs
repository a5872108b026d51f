
pub mod lambda;
pub mod pattern;
pub mod postgres;
pub mod s3;
pub mod template;
pub mod wait;
pub mod application;
pub mod autoscaling;
pub mod bus;
pub mod clock;
mod endpoint;
pub mod fault;
pub mod imds;
pub mod node;
pub mod ssm;
pub mod world;
