//! Everything that the functions and the agent share.
//!
//! Read [`event`] for the events, [`command`] for the commands to a node, [`report`] for its reports, [`manifest`] for
//! the content of a backup, and [`budget`] for the time limits. Only the functions use [`function`]. The agent uses a
//! few parts of [`aws`].

pub mod aws;
pub mod budget;
pub mod checksum;
pub mod command;
pub mod error;
pub mod event;
pub mod exit_code;
pub mod function;
pub mod id;
pub mod kind;
pub mod layout;
pub mod manifest;
pub mod operation;
pub mod report;
mod schema;
pub mod verdict;

pub use error::{Error, Result};
