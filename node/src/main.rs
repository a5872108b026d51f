//! The agent's program. The library does the work, so that tests and benchmarks can call it.

use std::process::ExitCode;

fn main() -> ExitCode {
    rekindle_node::run()
}
