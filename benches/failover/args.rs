//! The command line of the failover bench.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Parser, ValueEnum};

use crate::peer_program::Peer;
use crate::scenario::{FailoverScope, SCENARIOS};

/// What clients see of a failure: gapless at its defaults beside tuned haproxy, nginx and Envoy.
#[derive(Debug, Parser)]
#[command(name = "failover")]
pub(crate) struct FailoverArgs {
    /// A failure to run, may be repeated; all by default
    #[arg(long = "class", value_name = "NAME", value_parser = scenario_names())]
    pub(crate) classes: Vec<String>,
    /// How much of a zone fails, may be repeated; both by default
    #[arg(long = "scope", value_name = "SCOPE")]
    pub(crate) scopes: Vec<FailoverScope>,
    /// A system to run, may be repeated; all that are installed by default
    #[arg(long = "peer", value_name = "NAME")]
    pub(crate) peers: Vec<Peer>,
    /// Requests a second; every fifth is a POST
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    pub(crate) rate: u32,
    /// Traffic before the failure, in seconds
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) warm_up_seconds: u64,
    /// Duration of the failure, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=600))]
    pub(crate) fault_seconds: u64,
    /// Traffic after the failure, in seconds
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(2..=600))]
    pub(crate) heal_seconds: u64,
    /// Number of measurements of each cell
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) runs: u32,
    /// Measure two cells only, to test the bench itself
    #[arg(long, conflicts_with_all = ["classes", "scopes", "peers"])]
    pub(crate) smoke: bool,
    /// Format of the output
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: FailoverReportFormat,
    /// A cell during which the machine paused for longer than this is measured again
    #[arg(long, value_name = "MS", default_value_t = 50.0)]
    pub(crate) pause_ms: f64,
    /// The most repetitions of such a cell
    #[arg(long, default_value_t = 1)]
    pub(crate) repeats: u32,
    /// The whole run ends after this many minutes, with or without all cells
    #[arg(long, default_value_t = 60)]
    pub(crate) minutes: u64,
    /// The gapless to measure; the one just built by default
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_gapless"))]
    pub(crate) gapless: PathBuf,
    /// Envoy, or the virtual environment that has PyPI's; what the PATH has by default, or else
    /// `target/envoy`
    #[arg(long, value_name = "PATH")]
    pub(crate) envoy: Option<PathBuf>,
    /// The flag that `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// Format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailoverReportFormat {
    /// Tables.
    Text,
    /// One JSON object.
    Json,
}

fn scenario_names() -> PossibleValuesParser {
    SCENARIOS.iter().map(|scenario| scenario.name).collect::<Vec<_>>().into()
}
