//! The command line.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Parser, ValueEnum};

use crate::fault_class::CLASSES;
use crate::layout::POOLS_MAX;

/// Failures injected into real processes: is each detected as `gapless predict` says?
#[derive(Debug, Parser)]
#[command(name = "detection")]
pub(crate) struct DetectionArgs {
    /// Failures of each class, with and without traffic
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=900))]
    pub(crate) runs: u32,
    /// A class to run, may be repeated; all by default
    #[arg(long = "class", value_name = "NAME", value_parser = class_names())]
    pub(crate) classes: Vec<String>,
    /// Requests while the endpoint fails
    #[arg(long, value_enum, default_value = "both")]
    pub(crate) traffic: TrafficMode,
    /// What fails
    #[arg(long, value_enum, default_value = "endpoint")]
    pub(crate) scope: DetectionScope,
    /// Five failures of two classes, or little of the kinds below: whether all of this still works
    #[arg(long, conflicts_with_all = ["runs", "classes"])]
    pub(crate) smoke: bool,
    /// Does what `gapless tune` finds meet its target?
    #[arg(long, conflicts_with_all = ["classes", "random"])]
    pub(crate) tuned: bool,
    /// So many failures, each with a configuration of its own, drawn by chance
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "200", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) random: Option<u32>,
    /// Equal seeds draw equal configurations for `--random`
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How the result is printed
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: DetectionReportFormat,
    /// A class that is not predicted is no failure
    #[arg(long)]
    pub(crate) allow_missing: bool,
    /// Requests a second to each pool, with traffic
    #[arg(long, default_value_t = 60.0)]
    pub(crate) rate: f64,
    /// The round trip to an endpoint that the prediction is asked for; that of the probes before
    /// anything fails by default
    #[arg(long)]
    pub(crate) rtt_ms: Option<f64>,
    /// Equal pools: failures injected in one round, one in each
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=POOLS_MAX))]
    pub(crate) pools: u32,
    /// A cell during which the machine paused for longer than this is measured again
    #[arg(long, value_name = "MS", default_value_t = 50.0)]
    pub(crate) pause_ms: f64,
    /// So often at most
    #[arg(long, default_value_t = 2)]
    pub(crate) repeats: u32,
    /// The whole run ends after this many minutes, whatever is left
    #[arg(long, default_value_t = 120)]
    pub(crate) minutes: u64,
    /// The gapless to measure; the one just built by default
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_gapless"))]
    pub(crate) gapless: PathBuf,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// With or without requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TrafficMode {
    /// Only with.
    With,
    /// Only without.
    Without,
    /// First without, then with.
    Both,
}

impl TrafficMode {
    /// The modes that it stands for.
    pub(crate) fn modes(self) -> &'static [bool] {
        match self {
            Self::With => &[true],
            Self::Without => &[false],
            Self::Both => &[false, true],
        }
    }
}

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DetectionScope {
    /// One endpoint.
    Endpoint,
    /// All endpoints of a zone at once; the last verdict counts.
    Zone,
    /// One after the other.
    Both,
}

impl DetectionScope {
    /// The scopes that it stands for, in the words of `gapless predict`.
    pub(crate) fn scopes(self) -> &'static [&'static str] {
        match self {
            Self::Endpoint => &["endpoint"],
            Self::Zone => &["zone"],
            Self::Both => &["endpoint", "zone"],
        }
    }
}

/// How the result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DetectionReportFormat {
    /// A table.
    Text,
    /// One JSON object with every run in it.
    Json,
}

fn class_names() -> PossibleValuesParser {
    CLASSES.iter().map(|class| class.name).collect::<Vec<_>>().into()
}
