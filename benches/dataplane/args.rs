//! The command line of the data-plane bench.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;
use clap::builder::PossibleValuesParser;

use crate::case::CASES;
use crate::peer_program::Peer;

/// CPU per request, throughput, latency and memory of gapless beside haproxy, nginx and Envoy, in
/// one run.
#[derive(Debug, Parser)]
#[command(name = "dataplane")]
pub(crate) struct DataplaneArgs {
    /// Interleaved rounds of each proxy
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Length of each measured window, in seconds
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// A case to run, may be repeated; all by default
    #[arg(long = "case", value_name = "NAME", value_parser = case_names())]
    pub(crate) cases: Vec<String>,
    /// Run one short round of a case of each kind, to test the bench itself
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "cases"])]
    pub(crate) smoke: bool,
    /// The file for the results as JSON
    #[arg(long, value_name = "FILE", default_value = "target/dataplane.json")]
    pub(crate) json: PathBuf,
    /// The proxies to compare
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "gapless,haproxy,nginx,envoy"
    )]
    pub(crate) peers: Vec<Peer>,
    /// A gapless to measure; may be repeated, as NAME=PATH, to compare several. The one just built
    /// by default
    #[arg(long, value_name = "[NAME=]PATH", default_value = env!("CARGO_BIN_EXE_gapless"))]
    pub(crate) gapless: Vec<NamedProgram>,
    /// Envoy, or a virtual environment with PyPI's Envoy; by default the one on the PATH, or else
    /// in `target/envoy`
    #[arg(long, value_name = "PATH")]
    pub(crate) envoy: Option<PathBuf>,
    /// The flag that `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// A program and its name in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedProgram {
    /// `gapless` where no name was given.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl FromStr for NamedProgram {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let (name, path) = text.split_once('=').unwrap_or_else(|| (Peer::Gapless.name(), text));
        Ok(Self { name: name.to_owned(), path: path.into() })
    }
}

fn case_names() -> PossibleValuesParser {
    CASES.iter().map(|case| case.name).collect::<Vec<_>>().into()
}
