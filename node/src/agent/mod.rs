//! The program itself: its command line, its state on the node, and how it ends.

pub(crate) mod cloud_init;
pub(crate) mod command_line;
pub(crate) mod exactly_once;
pub mod failure;
pub(crate) mod instance;
pub(crate) mod marker;
pub(crate) mod process;
pub(crate) mod state;
pub(crate) mod watchdog;
