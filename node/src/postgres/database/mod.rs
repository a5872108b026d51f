//! The databases of a cluster: which to back up, their properties, and how a restore creates them.

pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod properties;
