//! The program that Lambda runs. The library has all its code.

use std::process::ExitCode;

fn main() -> ExitCode {
    restore::serve()
}
