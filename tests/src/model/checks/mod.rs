//! What is checked, from where, and with what result.

pub mod checker;
mod promises;
pub mod scenarios;
