//! The binary: arguments to command to exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(gapless::cli::main())
}
