//! The command line of the detection bench.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Parser, ValueEnum};

use crate::fault_class::CLASSES;
use crate::layout::POOLS_MAX;

/// Inject failures into real processes and compare the detection with `gapless predict`
#[derive(Debug, Parser)]
#[command(name = "detection")]
pub(crate) struct DetectionArgs {
    /// Failures of each class, with and without traffic
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=900))]
    pub(crate) runs: u32,
    /// A class to run, may be repeated; all by default
    #[arg(long = "class", value_name = "NAME", value_parser = class_names())]
    pub(crate) classes: Vec<String>,
    /// Traffic during the failure
    #[arg(long, value_enum, default_value = "both")]
    pub(crate) traffic: TrafficMode,
    /// What fails
    #[arg(long, value_enum, default_value = "endpoint")]
    pub(crate) scope: DetectionScope,
    /// Inject five failures of two classes, or few of the kinds below, to test the bench itself
    #[arg(long, conflicts_with_all = ["runs", "classes"])]
    pub(crate) smoke: bool,
    /// Test whether windows from `gapless tune` meet their target
    #[arg(long, conflicts_with_all = ["classes", "random"])]
    pub(crate) tuned: bool,
    /// The number of failures, each with a random configuration
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "200", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) random: Option<u32>,
    /// Compare the predictions of `gapless demo` with what it measures, `--runs` times for each
    /// fault and rate
    #[arg(long, conflicts_with_all = ["tuned", "random", "smoke"])]
    pub(crate) demo: bool,
    /// The same for drills of every fault
    #[arg(long, conflicts_with_all = ["tuned", "random", "smoke"])]
    pub(crate) drills: bool,
    /// A fault of `--demo` and `--drills`, may be repeated; all by default
    #[arg(long = "fault", value_name = "FAULT")]
    pub(crate) faults: Vec<String>,
    /// Keep all processors busy meanwhile, for `--demo` and `--drills`
    #[arg(long)]
    pub(crate) busy: bool,
    /// Seed for `--random`; equal seeds draw equal configurations
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Format of the output
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: DetectionReportFormat,
    /// Do not fail for a class without a prediction
    #[arg(long)]
    pub(crate) allow_missing: bool,
    /// Requests per second to each pool, with traffic
    #[arg(long, default_value_t = 60.0)]
    pub(crate) rate: f64,
    /// The round trip for the prediction; by default that of probes before any failure
    #[arg(long)]
    pub(crate) rtt_ms: Option<f64>,
    /// The number of equal pools: one failure in each per round
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=POOLS_MAX))]
    pub(crate) pools: u32,
    /// A cell during which the machine paused for longer than this is measured again
    #[arg(long, value_name = "MS", default_value_t = 50.0)]
    pub(crate) pause_ms: f64,
    /// The most repetitions of such a cell
    #[arg(long, default_value_t = 2)]
    pub(crate) repeats: u32,
    /// The whole run ends after this many minutes, with or without all cells
    #[arg(long, default_value_t = 120)]
    pub(crate) minutes: u64,
    /// The gapless to measure; the one just built by default
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_gapless"))]
    pub(crate) gapless: PathBuf,
    /// The flag that `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

impl DetectionArgs {
    /// Whether a fault of `--demo` or `--drills` is to be run.
    pub(crate) fn is_fault_wanted(&self, fault: &str) -> bool {
        self.faults.is_empty() || self.faults.iter().any(|wanted| wanted == fault)
    }
}

/// With or without requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TrafficMode {
    /// Only with traffic.
    With,
    /// Only without traffic.
    Without,
    /// First without, then with.
    Both,
}

impl TrafficMode {
    /// The modes of this choice.
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
    /// First an endpoint, then a zone.
    Both,
}

impl DetectionScope {
    /// The scopes of this choice, as `gapless predict` names them.
    pub(crate) fn scopes(self) -> &'static [&'static str] {
        match self {
            Self::Endpoint => &["endpoint"],
            Self::Zone => &["zone"],
            Self::Both => &["endpoint", "zone"],
        }
    }
}

/// Format of the output.
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
