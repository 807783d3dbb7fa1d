//! Tests whether windows from `gapless tune` meet their target in real failures.

use std::fs;
use std::io;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::args::DetectionReportFormat;
use crate::fault_class::{CLASSES, FaultClass};
use crate::layout::{self, PoolLayout};
use crate::measurement::{DetectionPlan, PlannedFault};
use crate::prediction::{self, ClassPrediction};
use crate::{DetectionBench, evaluation, plan_rounds, table};

/// The targets, in milliseconds.
const TARGETS_MS: [u64; 3] = [1_000, 300, 150];

/// The classes: a refusal, silence, and an error status.
const CLASS_NAMES: [&str; 3] = ["refused", "hang", "status_all"];

/// The target of `--smoke`.
const SMOKE_COUNT: usize = 1;

/// Failures of each target and class in `--smoke`.
const SMOKE_RUNS: usize = 4;

/// The service time of an endpoint in a probe.
const SERVICE_MS: f64 = 1.0;

/// The result for one target and class.
struct TunedRow {
    target_ms: u64,
    class: &'static str,
    detect: String,
    predicted: ClassPrediction,
    took_ms: Vec<Option<f64>>,
    pause_ms: f64,
    stray_verdicts: usize,
}

impl TunedRow {
    fn met_count(&self) -> usize {
        evaluation::count_inside(&self.took_ms, Some(self.target_ms as f64))
    }

    fn is_good(&self) -> bool {
        evaluation::is_prediction_met(&self.took_ms, Some(self.target_ms as f64))
    }

    fn p99_ms(&self) -> Option<f64> {
        match self.predicted {
            ClassPrediction::Seen { p99_ms, .. } => Some(p99_ms),
            ClassPrediction::Unseen(_) | ClassPrediction::Missing => None,
        }
    }
}

/// Tunes and fails endpoints; returns whether every target was met often enough.
pub(crate) fn run(bench: &DetectionBench<'_>) -> io::Result<bool> {
    let args = bench.args;
    let probe_ms = bench.rtt_ms()?;
    let targets = if args.smoke { &TARGETS_MS[..SMOKE_COUNT] } else { &TARGETS_MS[..] };
    let class_names = if args.smoke { &CLASS_NAMES[..SMOKE_COUNT] } else { &CLASS_NAMES[..] };
    let mut rows = Vec::new();
    let mut unmet = Vec::new();
    for &target_ms in targets {
        let layout = PoolLayout::with_defaults(CLASSES[0].probe);
        let (detect, interval) = match tune(bench, &layout, target_ms, probe_ms)? {
            TuneOutcome::Met(detect, interval) => (detect, interval),
            TuneOutcome::Unmet(reason) => {
                unmet.push((target_ms, reason));
                continue;
            }
        };
        eprintln!("target {target_ms} ms: {}", detect.join(", "));
        let layout = PoolLayout { detect, ..layout };
        let load_and_rtt = (args.rate, probe_ms);
        let predictions = prediction::run_predict(&args.gapless, &layout, load_and_rtt, bench.dir)?;
        for class in CLASSES.iter().filter(|class| class_names.contains(&class.name)) {
            let predicted = prediction::find_prediction(&predictions, class, "endpoint", false);
            rows.push(measure(bench, &layout, (target_ms, interval), class, predicted)?);
        }
    }
    match args.format {
        DetectionReportFormat::Text => print!("{}", as_text(&rows, &unmet)),
        DetectionReportFormat::Json => println!("{:#}", as_json(&rows, &unmet)),
    }
    // A few failures on a busy machine do not test windows.
    Ok(args.smoke || unmet.is_empty() && rows.iter().all(TunedRow::is_good))
}

fn measure(
    bench: &DetectionBench<'_>,
    layout: &PoolLayout,
    (target_ms, interval): (u64, Duration),
    class: &'static FaultClass,
    predicted: ClassPrediction,
) -> io::Result<TunedRow> {
    let args = bench.args;
    let runs = if args.smoke { SMOKE_RUNS } else { args.runs as usize };
    let layouts = vec![layout.clone(); (args.pools as usize).min(runs)];
    let plan_fault =
        |pool: usize| PlannedFault::new(pool, (class, "endpoint"), interval, &predicted);
    let plan = DetectionPlan {
        layouts: &layouts,
        rounds: plan_rounds(layouts.len(), runs, plan_fault),
        is_over_tls: false,
        rate_rps: None,
        warm_up: Duration::ZERO,
        program: &args.gapless,
        dir: bench.dir,
    };
    eprintln!("  {}", class.name);
    let measured = bench.measure(&plan)?;
    Ok(TunedRow {
        target_ms,
        class: class.name,
        detect: layout.detect.join(", "),
        predicted,
        took_ms: measured.runs.iter().map(|run| run.took_ms).collect(),
        pause_ms: measured.pause_ms,
        stray_verdicts: measured.stray_verdicts,
    })
}

/// The answer of `gapless tune` for a target.
enum TuneOutcome {
    /// The lines of `detect`, and the interval.
    Met(Vec<String>, Duration),
    /// The target cannot be met, for this reason.
    Unmet(String),
}

/// Runs `gapless tune`.
fn tune(
    bench: &DetectionBench<'_>,
    layout: &PoolLayout,
    target_ms: u64,
    probe_ms: f64,
) -> io::Result<TuneOutcome> {
    let config = bench.dir.join("tune.toml");
    fs::write(&config, layout::pools_config(std::slice::from_ref(layout), 1, 2))?;
    // A probe takes two round trips and the service time.
    let rtt_ms = ((probe_ms - SERVICE_MS) / 2.0).max(0.05);
    let mut command = Command::new(&bench.args.gapless);
    command.arg("tune").arg(&config).args(["--format", "json"]);
    command.args(["--target", &format!("{target_ms}ms"), "--rtt-ms", &rtt_ms.to_string()]);
    let output = command.output()?;
    let report: Value = serde_json::from_slice(&output.stdout).map_err(|_| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        io::Error::other(format!("gapless tune: {}", stderr.trim()))
    })?;
    let pool = &report["pools"][0];
    if report["met"] != true {
        return Ok(TuneOutcome::Unmet(pool["binding"].to_string()));
    }
    // The header of the table names the only pool of this configuration; the lines apply to all
    // pools.
    let lines = pool["toml"].as_str().unwrap_or_default().lines().skip(1).map(str::to_owned);
    let interval_ms = pool["after"]["detect"]["interval_ms"].as_f64().unwrap_or(1_000.0);
    Ok(TuneOutcome::Met(lines.collect(), Duration::from_secs_f64(interval_ms / 1e3)))
}

const HEADINGS: [&str; 10] = [
    "class",
    "detect",
    "target",
    "predicted p99",
    "runs",
    "median",
    "p99",
    "worst",
    "within target",
    "target met",
];

fn as_text(rows: &[TunedRow], unmet: &[(u64, String)]) -> String {
    let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
    let row = |row: &TunedRow| {
        let mut detected_ms: Vec<f64> = row.took_ms.iter().copied().flatten().collect();
        detected_ms.sort_by(f64::total_cmp);
        let mut cells = vec![row.class.to_owned(), row.detect.clone(), row.target_ms.to_string()];
        cells.extend([figure(row.p99_ms()), row.took_ms.len().to_string()]);
        cells.extend(
            [0.5, 0.99, 1.0].map(|share| figure(evaluation::quantile(&detected_ms, share))),
        );
        cells.push(row.met_count().to_string());
        cells.push(if row.is_good() { "ok" } else { "FAILED" }.to_owned());
        cells
    };
    let table = table::render(&HEADINGS, &rows.iter().map(row).collect::<Vec<_>>());
    let pause_ms = rows.iter().map(|row| row.pause_ms).fold(0.0, f64::max);
    let stray_verdicts: usize = rows.iter().map(|row| row.stray_verdicts).sum();
    let unmet_text: String = unmet
        .iter()
        .map(|(target_ms, why)| format!("A target of {target_ms} ms cannot be met here: {why}\n"))
        .collect();
    format!(
        "From failure to verdict, in ms\n\n{table}\n{unmet_text}The machine paused for {pause_ms:.1} ms at most; \
         {stray_verdicts} verdicts on endpoints that had not failed\n"
    )
}

fn as_json(rows: &[TunedRow], unmet: &[(u64, String)]) -> Value {
    let row = |row: &TunedRow| {
        json!({
            "target_ms": row.target_ms,
            "class": row.class,
            "detect": row.detect,
            "predicted": row.predicted,
            "took_ms": row.took_ms,
            "within_target": row.met_count(),
            "pause_ms": row.pause_ms,
            "stray_verdicts": row.stray_verdicts,
            "met": row.is_good(),
        })
    };
    let unmet_json = unmet.iter().map(|(ms, why)| json!({ "target_ms": ms, "why": why }));
    json!({
        "tuned": rows.iter().map(row).collect::<Vec<_>>(),
        "cannot_be_met": unmet_json.collect::<Vec<_>>(),
    })
}
