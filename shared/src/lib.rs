//! What both sides of Rekindle compile against: the functions that decide, and the agent that acts.
//!
//! Read [`event`] for everything that can happen, [`command`] for what a node is asked, [`report`] for
//! what it answers, [`manifest`] for what a backup is, and [`budget`] for how long anything may take.

pub mod agent;
pub mod answer;
pub mod aws;
pub mod budget;
pub mod checksum;
pub mod command;
pub mod context;
pub mod env;
pub mod error;
pub mod event;
pub mod failure;
pub mod id;
pub mod lambda;
pub mod layout;
mod log;
pub mod manifest;
pub mod metrics;
pub mod operation;
pub mod report;
pub mod verdict;

pub use error::{Error, Result};
