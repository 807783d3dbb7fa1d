//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// POSTs of `--smoke`.
const SMOKE_COUNT: u64 = 20_000;

/// Many mixed POSTs while endpoints are killed at random: none twice, none lost in silence.
#[derive(Debug, Parser)]
#[command(name = "soak")]
pub(crate) struct SoakArgs {
    /// POSTs to send
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    count: u64,
    /// Few of them: whether all of this still works
    #[arg(long, conflicts_with = "count")]
    smoke: bool,
    /// Decides what is sent, and what fails when; random by default, and printed
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Where the result is put as JSON too
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// The whole run ends after this many minutes, whatever is left
    #[arg(long, default_value_t = 60)]
    pub(crate) minutes: u64,
    /// The gapless to try; the one just built by default
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_gapless"))]
    pub(crate) gapless: PathBuf,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

impl SoakArgs {
    pub(crate) fn post_count(&self) -> u64 {
        if self.smoke { SMOKE_COUNT } else { self.count }
    }
}
