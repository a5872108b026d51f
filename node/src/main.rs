//! The program that SSM runs on the instance; everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    rekindle_node::run()
}
