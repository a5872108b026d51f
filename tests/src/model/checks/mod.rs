//! The checker, the scenarios that it starts from, and the promises that it checks.

pub mod checker;
mod promises;
pub mod scenarios;
