//! Compares the detection of real failures with `gapless predict`. Failures of real processes (and
//! packets dropped in a network namespace) are compared with the prediction for the same
//! configuration: of 100 verdicts at least 95 must come within the predicted 99th percentile. The
//! exit code is 1 if they do not.
//!
//! `cargo bench --bench detection` measures every class, with and without traffic (half an hour).
//! `cargo bench --bench detection -- --smoke` tests the bench itself (20 seconds).
//! `cargo bench --bench detection -- --class hang --class refused --traffic with --scope zone`
//! `cargo bench --bench detection -- --runs 300 --format json > detection.json`
//! `cargo bench --bench detection -- --tuned` tests that windows from `gapless tune` meet their
//! targets.
//! `cargo bench --bench detection -- --demo --drills --runs 40` compares the predictions of the
//! demo and of drills with what they measure; `--busy` does so beside busy processors.
//! `cargo bench --bench detection -- --random 200` draws a configuration for every failure.
//!
//! Run it as root (the black hole needs a namespace, and is skipped without) on an idle machine;
//! the second table shows how idle it was.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde_json::Value;

mod args;
#[path = "../support/bench_main.rs"]
mod bench_main;
mod calibration;
#[path = "../support/cell_outcome.rs"]
mod cell_outcome;
#[path = "../support/certificates.rs"]
mod certificates;
#[path = "../support/endpoint.rs"]
mod endpoint;
#[path = "../support/endpoint_tls.rs"]
mod endpoint_tls;
mod evaluation;
#[path = "../support/fault_class.rs"]
#[allow(dead_code, reason = "not every class of the failover bench is one here")]
mod fault_class;
#[path = "../support/fleet.rs"]
mod fleet;
mod forecasts;
#[path = "../support/gapless_process.rs"]
mod gapless_process;
#[path = "../support/http1_message.rs"]
mod http1_message;
#[path = "../support/keep_alive_connections.rs"]
mod keep_alive_connections;
#[path = "../support/layout.rs"]
mod layout;
#[path = "../support/machine.rs"]
mod machine;
mod measurement;
#[path = "../support/namespace.rs"]
mod namespace;
#[path = "../support/open_loop_load.rs"]
#[allow(dead_code, reason = "an even pace is for comparisons")]
mod open_loop_load;
#[path = "../support/packet_drops.rs"]
mod packet_drops;
mod prediction;
mod random_configs;
mod report;
#[path = "../support/run_deadline.rs"]
mod run_deadline;
#[path = "../support/sample.rs"]
#[allow(dead_code, reason = "only their number matters here")]
mod sample;
mod tuned;

#[path = "../support/parse.rs"]
#[allow(dead_code, reason = "of what it reads, only cores matter here")]
mod parse;
#[path = "../../tests/support/pki.rs"]
#[allow(dead_code, reason = "the tests need more kinds of certificates")]
mod pki;
#[path = "../support/table.rs"]
mod table;

use args::{DetectionArgs, DetectionReportFormat};
use cell_outcome::{CellOutcome, measure_with_repeats};
use fault_class::{CLASSES, FaultClass, SMOKE_CLASSES};
use layout::PoolLayout;
use measurement::{DetectionMeasurement, DetectionPlan, PlannedFault};
use packet_drops::BenchNamespace;
use prediction::ClassPrediction;
use report::DetectionCell;
use run_deadline::RunDeadline;

/// The default period of probes.
const DEFAULT_PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Failures of each class in `--smoke`.
const SMOKE_RUNS: usize = 5;

fn main() -> ExitCode {
    bench_main::main("detection", || run(&DetectionArgs::parse()))
}

/// Runs the bench; returns whether every prediction held.
fn run(args: &DetectionArgs) -> io::Result<bool> {
    let run_deadline = RunDeadline::start(Duration::from_secs(args.minutes * 60))?;
    let dir = tempfile::tempdir()?;
    endpoint_tls::write_files(dir.path())?;
    let namespace = BenchNamespace::new()?;
    let network = namespace.as_ref().map(|namespace| &namespace.network);
    let bench = DetectionBench {
        args,
        dir: dir.path(),
        can_drop_packets: namespace.as_ref().is_some_and(|namespace| namespace.can_drop_packets),
        run_deadline: &run_deadline,
    };
    if args.tuned {
        let is_good = namespace::run_inside(network, || tuned::run(&bench))?;
        return Ok(is_good && !run_deadline.is_over());
    }
    if let Some(trials) = args.random {
        let is_good = namespace::run_inside(network, || random_configs::run(&bench, trials))?;
        return Ok(is_good && !run_deadline.is_over());
    }
    if args.demo || args.drills {
        let is_good = namespace::run_inside(network, || forecasts::run(&bench))?;
        return Ok(is_good && !run_deadline.is_over());
    }
    let cells = namespace::run_inside(network, || bench.run())?;
    match args.format {
        DetectionReportFormat::Text => print!("{}", report::as_text(&cells)),
        DetectionReportFormat::Json => println!("{:#}", report::as_json(&cells)),
    }
    Ok(report::is_good(&cells, args.allow_missing) && !run_deadline.is_over())
}

/// The parameters of all cells.
struct DetectionBench<'a> {
    args: &'a DetectionArgs,
    dir: &'a Path,
    /// Whether packets can be dropped.
    can_drop_packets: bool,
    run_deadline: &'a RunDeadline,
}

impl DetectionBench<'_> {
    fn run(&self) -> io::Result<Vec<DetectionCell>> {
        let args = self.args;
        let is_wanted = |class: &&FaultClass| {
            let is_named = |names: &[&str]| names.contains(&class.name);
            let named: Vec<&str> = args.classes.iter().map(String::as_str).collect();
            if args.smoke { is_named(&SMOKE_CLASSES) } else { named.is_empty() || is_named(&named) }
        };
        let rtt_ms = self.rtt_ms()?;
        let mut predictions: HashMap<&str, Vec<Value>> = HashMap::new();
        let mut cells = Vec::new();
        for class in CLASSES.iter().filter(is_wanted) {
            let rows = match predictions.entry(class.probe) {
                std::collections::hash_map::Entry::Occupied(computed) => computed.into_mut(),
                std::collections::hash_map::Entry::Vacant(vacant) => {
                    let load_and_rtt = (args.rate, rtt_ms);
                    let program = &args.gapless;
                    let layout = PoolLayout::with_defaults(class.probe);
                    vacant.insert(prediction::run_predict(
                        program,
                        &layout,
                        load_and_rtt,
                        self.dir,
                    )?)
                }
            };
            for &scope in args.scope.scopes() {
                for &with_traffic in args.traffic.modes() {
                    if self.run_deadline.is_over() {
                        return Ok(cells);
                    }
                    let predicted = prediction::find_prediction(rows, class, scope, with_traffic);
                    cells.push(self.run_cell(class, scope, with_traffic, predicted));
                }
            }
        }
        Ok(cells)
    }

    fn run_cell(
        &self,
        class: &'static FaultClass,
        scope: &'static str,
        with_traffic: bool,
        predicted: ClassPrediction,
    ) -> DetectionCell {
        let args = self.args;
        let runs = if args.smoke { SMOKE_RUNS } else { args.runs as usize };
        let traffic_rps = with_traffic.then_some(args.rate);
        let layouts = vec![PoolLayout::with_defaults(class.probe); (args.pools as usize).min(runs)];
        let plan = DetectionPlan {
            layouts: &layouts,
            rounds: plan_rounds(layouts.len(), runs, |pool| {
                PlannedFault::new(pool, (class, scope), DEFAULT_PROBE_INTERVAL, &predicted)
            }),
            is_over_tls: class.has_tls_probe(),
            rate_rps: traffic_rps,
            // Learnt latency matters only for silence, which is no class of the smoke test.
            warm_up: if args.smoke { Duration::ZERO } else { measurement::WARM_UP },
            program: &args.gapless,
            dir: self.dir,
        };
        let traffic_word = if with_traffic { "with" } else { "without" };
        eprintln!("{} ({scope}), {traffic_word} traffic", class.name);
        let outcome = if class.mechanism.drops_packets() && !self.can_drop_packets {
            CellOutcome::Skipped("packets cannot be dropped here")
        } else {
            self.measure(&plan).into()
        };
        DetectionCell { class: class.name, scope, traffic_rps, predicted, outcome }
    }

    /// The duration of a probe on this machine.
    fn rtt_ms(&self) -> io::Result<f64> {
        let rtt_ms = match self.args.rtt_ms {
            Some(rtt_ms) => rtt_ms,
            None => {
                measurement::measure_round_trip_ms(&self.args.gapless, self.dir, self.run_deadline)?
            }
        };
        eprintln!("a probe takes {rtt_ms:.2} ms");
        Ok(rtt_ms)
    }

    fn measure(&self, plan: &DetectionPlan<'_>) -> io::Result<DetectionMeasurement> {
        let max_repeats = if self.args.smoke { 0 } else { self.args.repeats };
        let measure = || measurement::measure_detection(plan, self.run_deadline);
        let (measured, repeats) = measure_with_repeats(self.args.pause_ms, max_repeats, measure)?;
        Ok(DetectionMeasurement { repeats, ..measured })
    }
}

/// The number of failures, one in each pool at a time.
fn plan_rounds(
    pools: usize,
    runs: usize,
    plan_fault: impl Fn(usize) -> PlannedFault,
) -> Vec<Vec<PlannedFault>> {
    let mut remaining = runs;
    let mut rounds = Vec::new();
    while remaining > 0 {
        let now = remaining.min(pools);
        rounds.push((0..now).map(&plan_fault).collect());
        remaining -= now;
    }
    rounds
}
