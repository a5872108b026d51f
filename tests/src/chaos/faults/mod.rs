//! The faults, and how each is injected.

pub mod catalogue;
pub mod damage;
pub mod fault;
pub mod inject;
pub mod points;
pub mod requests;
mod target;
