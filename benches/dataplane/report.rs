//! The report, as tables and as JSON.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::case::{BenchCase, CAPACITY_FRACTION, CONNECTIONS, Comparison, LoadProfile};
use crate::environment::BenchEnvironment;
use crate::measure::{ArmRounds, CaseRounds, RoundSample, TrafficFigures};
use crate::parse::Percentiles;
use crate::stats::RangeSummary;
use crate::table;

/// The result of a run.
#[derive(Debug, Serialize)]
pub(crate) struct DataplaneReport {
    pub(crate) environment: BenchEnvironment,
    /// Interleaved rounds of each proxy.
    pub(crate) rounds: u32,
    /// Length of each measured window.
    pub(crate) window_seconds: u64,
    pub(crate) connections: u32,
    /// Connections of cases with idle connections.
    pub(crate) idle_connections: u32,
    /// What is missing, with the reason.
    pub(crate) missing: Vec<String>,
    /// The cases, in the order of the run.
    pub(crate) cases: Vec<CaseReport>,
}

#[derive(Debug, Serialize)]
pub(crate) struct CaseReport {
    name: &'static str,
    about: &'static str,
    /// Whether costs are bytes per connection, not CPU µs per request.
    is_memory: bool,
    /// The largest accepted ratio of a program's second set-up, if the case has one.
    target_ratio: Option<f64>,
    /// The fixed rate in requests per second, if any.
    fixed_rate: Option<f64>,
    arms: Vec<ArmReport>,
}

/// One proxy under one case.
#[derive(Debug, Serialize)]
struct ArmReport {
    label: String,
    /// `None` if no round could be measured.
    figures: Option<ArmFigures>,
    /// The ratio of its median cost to that of the reference.
    ratio: Option<f64>,
    problems: Vec<String>,
    samples: Vec<RoundSample>,
}

/// Medians and ranges over the rounds.
#[derive(Debug, Serialize)]
struct ArmFigures {
    /// CPU µs per request, or bytes per connection.
    cost: RangeSummary,
    requests_per_second: Option<RangeSummary>,
    p50_us: Option<RangeSummary>,
    p99_us: Option<RangeSummary>,
    p999_us: Option<RangeSummary>,
    load_core_busy_percent: Option<RangeSummary>,
    proxy_core_busy_percent: Option<RangeSummary>,
}

impl ArmFigures {
    fn from_samples(samples: &[RoundSample]) -> Option<Self> {
        let traffic = || samples.iter().filter_map(|sample| sample.traffic.as_ref());
        let summary_of =
            |figure: fn(&TrafficFigures) -> f64| RangeSummary::from_values(traffic().map(figure));
        let latency_summary = |figure: fn(Percentiles) -> u64| {
            RangeSummary::from_values(
                traffic().filter_map(|traffic| Some(figure(traffic.latency?) as f64)),
            )
        };
        Some(Self {
            cost: RangeSummary::from_values(samples.iter().map(|sample| sample.cost.value()))?,
            requests_per_second: summary_of(|traffic| traffic.requests_per_second),
            p50_us: latency_summary(|percentiles| percentiles.p50_us),
            p99_us: latency_summary(|percentiles| percentiles.p99_us),
            p999_us: latency_summary(|percentiles| percentiles.p999_us),
            load_core_busy_percent: summary_of(|traffic| traffic.load_core_busy_percent),
            proxy_core_busy_percent: summary_of(|traffic| traffic.proxy_core_busy_percent),
        })
    }
}

/// The reference cost of each arm, in their order.
fn reference_costs(case: &BenchCase, arms: &[ArmRounds]) -> Vec<Option<f64>> {
    let median = |arm: &ArmRounds| {
        RangeSummary::from_values(arm.samples.iter().map(|sample| sample.cost.value()))
            .map(|cost| cost.median)
    };
    match case.compare {
        Comparison::Peers => {
            let peers = arms.iter().filter(|arm| !arm.is_gapless);
            vec![peers.filter_map(median).min_by(f64::total_cmp); arms.len()]
        }
        Comparison::Workers { .. } => {
            let first_arm_of = |own: &ArmRounds| arms.iter().find(|arm| arm.program == own.program);
            arms.iter().map(|arm| median(first_arm_of(arm)?)).collect()
        }
    }
}

impl CaseReport {
    /// Sums up the rounds of a case.
    pub(crate) fn new(case: &BenchCase, rounds: CaseRounds) -> Self {
        let references = reference_costs(case, &rounds.arms);
        let arm_report = |(arm, reference): (ArmRounds, Option<f64>)| {
            let figures = ArmFigures::from_samples(&arm.samples);
            let cost = figures.as_ref().map(|figures| figures.cost.median);
            ArmReport {
                label: arm.label,
                figures,
                ratio: cost.zip(reference).map(|(own, reference)| own / reference),
                problems: arm.problems,
                samples: arm.samples,
            }
        };
        let target_ratio = match case.compare {
            Comparison::Peers => None,
            Comparison::Workers { target_ratio } => Some(target_ratio),
        };
        Self {
            name: case.name,
            about: case.description,
            is_memory: case.load == LoadProfile::Idle,
            target_ratio,
            fixed_rate: rounds.fixed_rate,
            arms: rounds.arms.into_iter().zip(references).map(arm_report).collect(),
        }
    }

    /// Rows under the headings of CPU or memory.
    fn rows(&self) -> impl Iterator<Item = Vec<String>> {
        self.arms.iter().map(|arm| {
            let figures = arm.figures.as_ref();
            let text = |figure: fn(&ArmFigures) -> Option<RangeSummary>, decimals| {
                let summary = figures.and_then(figure);
                summary.map_or_else(|| "–".to_owned(), |summary| summary.format(decimals))
            };
            let cost_decimals = if self.is_memory { 0 } else { 2 };
            let mut row = vec![self.name.to_owned(), arm.label.clone()];
            row.push(text(|figures| Some(figures.cost), cost_decimals));
            row.push(arm.ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}")));
            if !self.is_memory {
                row.push(text(|figures| figures.requests_per_second, 0));
                row.push(text(|figures| figures.p50_us, 0));
                row.push(text(|figures| figures.p99_us, 0));
                row.push(text(|figures| figures.p999_us, 0));
                row.push(text(|figures| figures.load_core_busy_percent, 0));
            }
            row.push(arm.samples.iter().map(|sample| sample.errors).sum::<u64>().to_string());
            row
        })
    }

    fn print_notes(&self) {
        println!("- {}: {}", self.name, self.about);
        if let Some(rate) = self.fixed_rate {
            let percent = 100.0 * CAPACITY_FRACTION;
            println!("  - {rate:.0} requests/s: {percent:.0} % of what the slowest can do");
        }
        for arm in &self.arms {
            // The ratio of the reference itself is exactly 1.
            let ratio = arm.ratio.filter(|&ratio| ratio != 1.0);
            if let (Some(target), Some(ratio)) = (self.target_ratio, ratio) {
                let verdict = if ratio <= target { "met" } else { "missed" };
                println!("  - {}: {ratio:.2}; at most {target:.2}: {verdict}", arm.label);
            }
            for problem in &arm.problems {
                println!("  - {}: PROBLEM: {problem}", arm.label);
            }
        }
    }
}

const CPU_HEADINGS: [&str; 10] = [
    "case",
    "proxy",
    "CPU µs/request",
    "ratio",
    "requests/s",
    "p50 µs",
    "p99 µs",
    "p99.9 µs",
    "load core busy %",
    "errors",
];

const MEMORY_HEADINGS: [&str; 5] = ["case", "proxy", "bytes/connection", "ratio", "errors"];

impl DataplaneReport {
    /// Whether every round of every arm could be measured and was free of errors.
    pub(crate) fn is_clean(&self) -> bool {
        self.cases.iter().flat_map(|case| &case.arms).all(|arm| arm.problems.is_empty())
    }

    /// Prints the tables, with notes.
    pub(crate) fn print(&self) {
        let environment = &self.environment;
        self.print_table(&CPU_HEADINGS, false);
        self.print_table(&MEMORY_HEADINGS, true);
        println!(
            "Median (min–max); rounds, interleaved: {}; windows of {} s after a warm-up; \
             {CONNECTIONS} connections, closed loop, where a case does not say otherwise; \
             idle connections: {}.",
            self.rounds, self.window_seconds, self.idle_connections
        );
        println!("Ratio: to the best peer's; in `scaling`, to that of one worker.");
        println!("Where the load's core is near 100 %, requests/s and latency are the load's.\n");
        for case in &self.cases {
            case.print_notes();
        }
        for line in &self.missing {
            println!("- MISSING: {line}");
        }
        println!(
            "\nLinux {}, {} × {}",
            environment.kernel, environment.cores, environment.cpu_model
        );
        println!(
            "Congestion control {}, for large bodies {}; load averages at the start {}",
            environment.congestion_control,
            environment.congestion_control_of_bodies,
            environment.load_averages
        );
        for version in &environment.versions {
            println!("{version}");
        }
    }

    fn print_table(&self, headings: &[&str], is_memory: bool) {
        let cases = self.cases.iter().filter(|case| case.is_memory == is_memory);
        let rows: Vec<Vec<String>> = cases.flat_map(CaseReport::rows).collect();
        if !rows.is_empty() {
            println!("\n{}", table::render(headings, &rows));
        }
    }

    /// Writes the report as JSON, including the figures of each round.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")
    }
}
