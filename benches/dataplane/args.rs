//! The command line.

use std::path::PathBuf;

use clap::Parser;
use clap::builder::PossibleValuesParser;

use crate::case::CASES;
use crate::peer::Peer;

/// CPU per request, throughput and latency of gapless beside haproxy and nginx, in one run.
#[derive(Debug, Parser)]
#[command(name = "dataplane")]
pub(crate) struct Args {
    /// Interleaved rounds of each proxy
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Length of each measured window, in seconds
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// A case to run, may be repeated; all by default
    #[arg(long = "case", value_name = "NAME", value_parser = case_names())]
    pub(crate) cases: Vec<String>,
    /// One short round of the first case: whether all of this still works, not how fast it is
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "cases"])]
    pub(crate) smoke: bool,
    /// Where the results go as JSON
    #[arg(long, value_name = "FILE", default_value = "target/dataplane.json")]
    pub(crate) json: PathBuf,
    /// The proxies to compare
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "gapless,haproxy,nginx"
    )]
    pub(crate) peers: Vec<Peer>,
    /// The gapless to measure; the one just built by default
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_gapless"))]
    pub(crate) gapless: PathBuf,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

fn case_names() -> PossibleValuesParser {
    CASES.iter().map(|case| case.name).collect::<Vec<_>>().into()
}
