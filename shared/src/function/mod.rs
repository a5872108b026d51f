//! The process of a Lambda function: its settings, its clients, its answers, and its log lines and metrics.

pub mod agent;
pub mod answer;
pub mod context;
pub mod env;
pub mod failure;
pub mod lambda;
mod log;
pub mod metrics;
