//! The main function of benches whose endpoints are processes of the same program.

use std::env;
use std::io;
use std::process::ExitCode;

use crate::endpoint;

/// Runs an endpoint or the bench, by the arguments; `run` returns whether the bench succeeded.
pub(crate) fn main(bench: &str, run: impl FnOnce() -> io::Result<bool>) -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    if let [_, command, address, settings] = &*arguments
        && command == endpoint::ENDPOINT_COMMAND
    {
        return endpoint::main(address, settings);
    }
    // `cargo bench` passes `--bench`; `cargo test --benches` only checks that the bench builds.
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
