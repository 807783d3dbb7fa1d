//! Tests the predictions of `gapless demo` and of drills against their measurements: at several
//! rates of traffic, on an idle machine or beside threads that compete for its processors.

use std::io;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::args::DetectionReportFormat;
use crate::endpoint::EndpointSettings;
use crate::fleet::BenchFleet;
use crate::gapless_process::GaplessProcess;
use crate::layout::{self, FAILING_ZONE, POOL_ENDPOINTS};
use crate::open_loop_load::{ArrivalPattern, LoadSettings, OpenLoopLoad};
use crate::{DetectionBench, evaluation, measurement, table};

/// Requests per second.
const RATES_RPS: [u32; 3] = [10, 30, 200];

/// The faults of `gapless demo`.
const DEMO_FAULTS: [&str; 4] = ["refused", "hang", "reset", "bad-status"];

/// The faults of drills.
const DRILL_FAULTS: [&str; 7] =
    ["refused", "reset", "hang", "slow=2s", "status=503", "error-rate=30%", "cut"];

/// The excess over the slowest trial that is tolerated, as in the demo and drills.
const DEMO_TOLERANCE_MS: f64 = 10.0;
const DRILL_TOLERANCE_MS: f64 = 100.0;

/// The length of a demo and of a drill. Ratios of failures take seconds at 10 requests/s.
const DEMO_SECONDS: &str = "8";
const DRILL_LENGTH: &str = "5s";

/// How long the fault of such a demo lasts: two fifths of it.
const DEMO_FAULT_MS: f64 = 3_200.0;

/// The service time of an endpoint, equal to that of the simulator.
const SERVICE_TIME: Duration = Duration::from_millis(1);

/// The timeout of a client.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Predictions and measurements of one fault at one rate.
struct ForecastRow {
    kind: &'static str,
    fault: &'static str,
    rate_rps: u32,
    runs: Vec<ForecastRun>,
}

/// One demo or drill, in milliseconds.
struct ForecastRun {
    p99: Option<f64>,
    worst: Option<f64>,
    /// From the latest possible onset to the verdict; `None` if it did not come while the fault
    /// lasted.
    measured: Option<f64>,
    /// How long the fault lasted.
    lasted: f64,
    tolerance: f64,
    /// The machine was late, and the report said so.
    is_late_machine: bool,
}

impl ForecastRun {
    fn is_within_p99(&self) -> bool {
        match (self.measured, self.p99) {
            (Some(measured), Some(p99)) => measured <= p99 + self.tolerance,
            (None, Some(p99)) => p99 > self.lasted,
            (measured, None) => measured.is_none(),
        }
    }

    fn is_beyond_worst(&self) -> bool {
        match (self.measured, self.worst) {
            (Some(measured), Some(worst)) => measured > worst + self.tolerance,
            (None, Some(worst)) => worst <= self.lasted,
            (_, None) => false,
        }
    }

    fn is_good(&self) -> bool {
        self.is_late_machine || !self.is_beyond_worst()
    }
}

impl ForecastRow {
    /// Whether 95 of 100 runs are within the 99th percentile and none is beyond the slowest trial,
    /// except those in which the machine was late.
    fn is_good(&self) -> bool {
        let judged: Vec<&ForecastRun> =
            self.runs.iter().filter(|run| !run.is_late_machine).collect();
        let outside = judged.iter().filter(|run| !run.is_within_p99()).count();
        self.runs.iter().all(ForecastRun::is_good)
            && outside <= evaluation::max_outside(judged.len())
    }

    fn measured(&self) -> Vec<f64> {
        let mut measured: Vec<f64> = self.runs.iter().filter_map(|run| run.measured).collect();
        measured.sort_by(f64::total_cmp);
        measured
    }
}

/// Threads that keep every processor busy.
struct BusyThreads {
    is_stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl BusyThreads {
    fn start() -> Self {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let spin = || {
            let should_stop = Arc::clone(&is_stopped);
            std::thread::spawn(move || {
                while !should_stop.load(Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = (0..cores).map(|_| spin()).collect();
        Self { is_stopped, threads }
    }
}

impl Drop for BusyThreads {
    fn drop(&mut self) {
        self.is_stopped.store(true, Relaxed);
        self.threads.drain(..).for_each(|thread| _ = thread.join());
    }
}

/// Runs demos, drills or both; returns whether all measurements match their predictions.
pub(crate) fn run(bench: &DetectionBench<'_>) -> io::Result<bool> {
    let args = bench.args;
    let busy = args.busy.then(BusyThreads::start);
    let mut rows = Vec::new();
    if args.demo {
        for fault in DEMO_FAULTS.into_iter().filter(|fault| args.is_fault_wanted(fault)) {
            for rate_rps in RATES_RPS {
                rows.push(run_demos(bench, fault, rate_rps)?);
            }
        }
    }
    if args.drills {
        for rate_rps in RATES_RPS {
            rows.extend(run_drills(bench, rate_rps)?);
        }
    }
    drop(busy);
    match args.format {
        DetectionReportFormat::Text => print!("{}", as_text(&rows)),
        DetectionReportFormat::Json => println!("{:#}", as_json(&rows)),
    }
    Ok(rows.iter().all(ForecastRow::is_good))
}

fn run_demos(
    bench: &DetectionBench<'_>,
    fault: &'static str,
    rate_rps: u32,
) -> io::Result<ForecastRow> {
    let mut runs = Vec::new();
    for _ in 0..bench.args.runs {
        if bench.run_deadline.is_over() {
            break;
        }
        let mut command = Command::new(&bench.args.gapless);
        command.args(["demo", "--fault", fault, "--rate", &rate_rps.to_string()]);
        command.args(["--seconds", DEMO_SECONDS, "--format", "json"]);
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let report: Value = serde_json::from_str(text.lines().last().unwrap_or_default())
            .map_err(|_| failure("demo", &output.stderr))?;
        let measured = &report["measured"];
        let uncertainty = measured["onset_uncertainty_ms"].as_f64().unwrap_or_default();
        runs.push(ForecastRun {
            p99: report["predicted"]["p99_ms"].as_f64(),
            worst: report["predicted"]["worst_ms"].as_f64(),
            measured: measured["detection_ms"].as_f64().map(|took| took - uncertainty),
            lasted: DEMO_FAULT_MS,
            tolerance: DEMO_TOLERANCE_MS,
            is_late_machine: measured["judgement"] == "late_machine",
        });
        eprintln!("demo {fault} at {rate_rps}/s: {}", report["measured"]);
    }
    Ok(ForecastRow { kind: "demo", fault, rate_rps, runs })
}

/// Runs the drills of one rate in one instance.
fn run_drills(bench: &DetectionBench<'_>, rate_rps: u32) -> io::Result<Vec<ForecastRow>> {
    let setting = EndpointSettings { service: SERVICE_TIME, certificates: None, posts: None };
    let _fleet = BenchFleet::start((0..POOL_ENDPOINTS).map(layout::endpoint_address), setting)?;
    let probe = crate::fault_class::CLASSES[0].probe;
    let config = |listen, admin| layout::equal_pools_config(1, probe, listen, admin);
    let instance =
        GaplessProcess::start(&bench.args.gapless, config, bench.dir, bench.run_deadline)?;
    let load = OpenLoopLoad::start(
        instance.listen,
        LoadSettings {
            pools: 1,
            rate_rps: f64::from(rate_rps),
            arrivals: ArrivalPattern::Exponential,
            client_timeout: CLIENT_TIMEOUT,
        },
    )?;
    bench.run_deadline.sleep_until(Instant::now() + measurement::WARM_UP)?;
    let mut rows = Vec::new();
    for fault in DRILL_FAULTS.into_iter().filter(|fault| bench.args.is_fault_wanted(fault)) {
        let mut runs = Vec::new();
        for _ in 0..bench.args.runs {
            if bench.run_deadline.is_over() {
                break;
            }
            runs.push(run_drill(bench, &instance, fault)?);
        }
        rows.push(ForecastRow { kind: "drill", fault, rate_rps, runs });
    }
    drop(load.stop());
    Ok(rows)
}

fn run_drill(
    bench: &DetectionBench<'_>,
    instance: &GaplessProcess,
    fault: &str,
) -> io::Result<ForecastRun> {
    let mut command = Command::new(&bench.args.gapless);
    command.args(["drill", "start", "--lose", FAILING_ZONE, "--fault", fault]);
    command.args(["--share", "100%", "--for", DRILL_LENGTH, "--abort-budget", "100%"]);
    command.args(["--format", "json", "--admin", &instance.admin.to_string()]);
    let output = command.output()?;
    let report: Value =
        serde_json::from_slice(&output.stdout).map_err(|_| failure("drill", &output.stderr))?;
    eprintln!("drill {fault}: {} ({})", report["measured"], report["reason"]);
    Ok(ForecastRun {
        p99: report["predicted"]["p99_ms"].as_f64(),
        worst: report["predicted"]["worst_ms"].as_f64(),
        measured: report["measured"]["detection_ms"].as_f64(),
        lasted: report["measured"]["lasted_ms"].as_f64().unwrap_or_default(),
        tolerance: DRILL_TOLERANCE_MS,
        is_late_machine: report["reason"].as_str().is_some_and(|why| why.contains("was late by")),
    })
}

fn failure(what: &str, stderr: &[u8]) -> io::Error {
    io::Error::other(format!("gapless {what}: {}", String::from_utf8_lossy(stderr).trim()))
}

const HEADINGS: [&str; 11] = [
    "report",
    "fault",
    "requests/s",
    "runs",
    "median",
    "worst",
    "predicted p99",
    "predicted worst",
    "inside p99",
    "beyond worst",
    "machine late",
];

fn as_text(rows: &[ForecastRow]) -> String {
    let mut text = String::from("From onset to the verdict on the zone, in ms\n\n");
    let rows: Vec<Vec<String>> = rows.iter().map(text_row).collect();
    text.push_str(&table::render(&HEADINGS, &rows));
    text.push_str(&format!(
        "\nBeside the predicted figures there is a tolerance of {DEMO_TOLERANCE_MS} ms (demo) and \
         {DRILL_TOLERANCE_MS} ms (drill)\n"
    ));
    text
}

fn text_row(row: &ForecastRow) -> Vec<String> {
    let measured = row.measured();
    let figure =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
    let largest =
        |of: fn(&ForecastRun) -> Option<f64>| row.runs.iter().filter_map(of).max_by(f64::total_cmp);
    let count = |of: fn(&ForecastRun) -> bool| row.runs.iter().filter(|run| of(run)).count();
    vec![
        row.kind.to_owned(),
        row.fault.to_owned(),
        row.rate_rps.to_string(),
        row.runs.len().to_string(),
        figure(evaluation::quantile(&measured, 0.5)),
        figure(measured.last().copied()),
        figure(largest(|run| run.p99)),
        figure(largest(|run| run.worst)),
        count(ForecastRun::is_within_p99).to_string(),
        count(ForecastRun::is_beyond_worst).to_string(),
        count(|run| run.is_late_machine).to_string(),
    ]
}

fn as_json(rows: &[ForecastRow]) -> Value {
    let run = |run: &ForecastRun| {
        json!({
            "predicted_p99_ms": run.p99,
            "predicted_worst_ms": run.worst,
            "measured_ms": run.measured,
            "machine_late": run.is_late_machine,
        })
    };
    let row = |row: &ForecastRow| {
        json!({
            "report": row.kind,
            "fault": row.fault,
            "rate_rps": row.rate_rps,
            "runs": row.runs.iter().map(run).collect::<Vec<_>>(),
        })
    };
    json!({ "rows": rows.iter().map(row).collect::<Vec<_>>() })
}
