//! What the bench says: a table for people, JSON for programs.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::case::{CONNECTIONS, Case, Reference};
use crate::environment::Environment;
use crate::measure::{ArmRounds, Sample};
use crate::stats::Summary;
use crate::table;

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Where.
    pub(crate) environment: Environment,
    /// Interleaved rounds of each proxy.
    pub(crate) rounds: u32,
    /// Length of each measured window.
    pub(crate) window_seconds: u64,
    /// Connections of wrk.
    pub(crate) connections: u32,
    /// In the order they ran.
    pub(crate) cases: Vec<CaseReport>,
}

/// One case.
#[derive(Debug, Serialize)]
pub(crate) struct CaseReport {
    name: &'static str,
    about: &'static str,
    /// The largest good ratio of the last arm, where the case has one.
    target_ratio: Option<f64>,
    arms: Vec<ArmReport>,
}

/// One proxy under one case.
#[derive(Debug, Serialize)]
struct ArmReport {
    label: &'static str,
    /// Absent when no round could be measured.
    figures: Option<Figures>,
    /// CPU per request to that of the case's reference, medians.
    cpu_ratio: Option<f64>,
    problems: Vec<String>,
    samples: Vec<Sample>,
}

/// Medians and ranges over the rounds.
#[derive(Debug, Serialize)]
struct Figures {
    cpu_us_per_request: Summary,
    requests_per_second: Summary,
    p50_us: Summary,
    p99_us: Summary,
    p999_us: Summary,
    load_core_busy_percent: Summary,
    proxy_core_busy_percent: Summary,
}

impl Figures {
    fn of(samples: &[Sample]) -> Option<Self> {
        let over = |figure: fn(&Sample) -> f64| Summary::of(samples.iter().map(figure));
        Some(Self {
            cpu_us_per_request: over(|s| s.cpu_us_per_request)?,
            requests_per_second: over(|s| s.requests_per_second)?,
            p50_us: over(|s| s.p50_us)?,
            p99_us: over(|s| s.p99_us)?,
            p999_us: over(|s| s.p999_us)?,
            load_core_busy_percent: over(|s| s.load_core_busy_percent)?,
            proxy_core_busy_percent: over(|s| s.proxy_core_busy_percent)?,
        })
    }
}

impl CaseReport {
    /// Sums up the rounds of a case.
    pub(crate) fn new(case: &Case, arms: Vec<ArmRounds>) -> Self {
        let median = |arm: &ArmRounds| {
            Summary::of(arm.samples.iter().map(|s| s.cpu_us_per_request)).map(|cpu| cpu.median)
        };
        let (reference, target_ratio) = match case.reference {
            Reference::BestPeer => {
                let peers = arms.iter().filter(|arm| !arm.is_gapless);
                (peers.filter_map(median).min_by(f64::total_cmp), None)
            }
            Reference::FirstArm { target } => (arms.first().and_then(median), Some(target)),
        };
        let summed_up = |arm: ArmRounds| ArmReport {
            label: arm.label,
            figures: Figures::of(&arm.samples),
            cpu_ratio: median(&arm).zip(reference).map(|(own, reference)| own / reference),
            problems: arm.problems,
            samples: arm.samples,
        };
        let arms = arms.into_iter().map(summed_up).collect();
        Self { name: case.name, about: case.about, target_ratio, arms }
    }

    fn rows(&self) -> impl Iterator<Item = Vec<String>> {
        self.arms.iter().map(|arm| {
            let mut row = vec![self.name.to_owned(), arm.label.to_owned()];
            if let Some(figures) = &arm.figures {
                row.push(figures.cpu_us_per_request.text(2));
                row.push(arm.cpu_ratio.map_or_else(|| "–".to_owned(), |r| format!("{r:.2}")));
                row.push(figures.requests_per_second.text(0));
                row.push(figures.p50_us.text(0));
                row.push(figures.p99_us.text(0));
                row.push(figures.p999_us.text(0));
                row.push(figures.load_core_busy_percent.text(0));
            }
            row.resize(HEADINGS.len() - 1, "–".to_owned());
            row.push(arm.samples.iter().map(|sample| sample.errors).sum::<u64>().to_string());
            row
        })
    }

    fn print_notes(&self) {
        println!("- {}: {}", self.name, self.about);
        let last = self.arms.last().and_then(|arm| Some((arm.label, arm.cpu_ratio?)));
        if let (Some(target), Some((label, ratio))) = (self.target_ratio, last) {
            let verdict = if ratio <= target { "met" } else { "missed" };
            println!("  - {label}: {ratio:.2} of the first row; at most {target:.2}: {verdict}");
        }
        for arm in &self.arms {
            for problem in &arm.problems {
                println!("  - {}: PROBLEM: {problem}", arm.label);
            }
        }
    }
}

const HEADINGS: [&str; 10] = [
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

impl Report {
    /// Whether every round of every arm could be measured and was free of errors.
    pub(crate) fn is_clean(&self) -> bool {
        self.cases.iter().flat_map(|case| &case.arms).all(|arm| arm.problems.is_empty())
    }

    /// Prints the table, and what must be known to read it.
    pub(crate) fn print(&self) {
        let environment = &self.environment;
        let rows: Vec<Vec<String>> = self.cases.iter().flat_map(CaseReport::rows).collect();
        println!("\n{}", table::render(&HEADINGS, &rows));
        println!(
            "Median (min–max); rounds, interleaved: {}; windows of {} s after a warm-up; \
             {CONNECTIONS} connections, closed loop.",
            self.rounds, self.window_seconds
        );
        println!("Ratio: CPU per request to the best peer's; in `scaling`, to the first row's.");
        println!("Where the load's core is near 100 %, requests/s and latency are the load's.\n");
        for case in &self.cases {
            case.print_notes();
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

    /// Writes everything, each round's figures too, as JSON.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")
    }
}
