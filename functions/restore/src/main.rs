//! The program that Lambda runs; everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    restore::serve()
}
