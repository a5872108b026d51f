//! The demonstration, with the shipped binaries: back up, lose the node, restore its replacement before it is in
//! service; then replace that one on purpose. `make demo` prints it, and tests run it on less data.
//!
//! | module | contents |
//! |---|---|
//! | [`process`] | the demonstration with Postgres as a process, the second replacement under write load |
//! | [`containers`] | the demonstration with Postgres and a real registry in containers |
//! | [`table`] | the tables that `make demo` prints at the end |
//! | [`replacement`] | the result of one replacement: differences, RPO, RTO and timeline |
//! | `scenario` | the steps that both demonstrations share |

pub mod containers;
pub mod process;
pub mod replacement;
mod restore;
mod scenario;
mod state;
pub mod table;
