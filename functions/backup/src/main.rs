//! The program that Lambda runs. All of its code is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    backup::serve()
}
