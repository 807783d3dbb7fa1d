//! What the program is asked to be: a bench, or one of its endpoints.

use std::env;
use std::io;
use std::process::ExitCode;

use crate::endpoint;

/// The main function of a bench whose endpoints are processes of the same program; `run` says
/// whether all was good.
pub(crate) fn main(bench: &str, run: impl FnOnce() -> io::Result<bool>) -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    if let [_, command, address, settings] = &*arguments
        && command == endpoint::ENDPOINT_COMMAND
    {
        return endpoint::main(address, settings);
    }
    // `cargo bench` says so; `cargo test --benches` only wants to see that the bench builds.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{bench}: {error}");
            ExitCode::FAILURE
        }
    }
}
