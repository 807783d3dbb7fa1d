//! The command line of the soak bench.

use std::path::PathBuf;

use clap::Parser;

/// The number of POSTs of `--smoke`.
const SMOKE_COUNT: u64 = 20_000;

/// Many mixed POSTs while endpoints are killed at random: none is executed twice, none is lost
/// without an error.
#[derive(Debug, Parser)]
#[command(name = "soak")]
pub(crate) struct SoakArgs {
    /// POSTs to send
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    count: u64,
    /// Send few POSTs, to test the bench itself
    #[arg(long, conflicts_with = "count")]
    smoke: bool,
    /// Seed of the POSTs and failures; random by default, and printed
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// A file for the result as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// The whole run ends after this many minutes, whatever is left
    #[arg(long, default_value_t = 60)]
    pub(crate) minutes: u64,
    /// The gapless to test; the one just built by default
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_gapless"))]
    pub(crate) gapless: PathBuf,
    /// The flag that `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

impl SoakArgs {
    pub(crate) fn post_count(&self) -> u64 {
        if self.smoke { SMOKE_COUNT } else { self.count }
    }
}
