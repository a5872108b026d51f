//! The agent's own parts: command line, lock and records on the node, child processes, failures, and the watchdog.

pub(crate) mod cloud_init;
pub(crate) mod command_line;
pub mod failure;
pub(crate) mod instance;
pub(crate) mod lock;
pub(crate) mod marker;
pub(crate) mod process;
pub(crate) mod run_once;
pub(crate) mod state;
pub(crate) mod watchdog;
