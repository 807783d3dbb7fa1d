//! Failures in random configurations, to test predictions beyond the defaults.
//!
//! Each pool of one instance is a configuration with its own `detect`, zones and probe; pools do
//! not influence each other.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use fastrand::Rng;
use gapless::config;
use gapless::sim::latency::LatencyModel;
use gapless::sim::predict::{
    self, FaultCase, FaultKind, FaultScope, PredictedWindow, PredictionInput, WindowSpread,
};
use serde_json::{Value, json};

use crate::args::DetectionReportFormat;
use crate::calibration::{Calibration, CalibrationPoint};
use crate::fault_class::{CLASSES, FaultClass};
use crate::layout::{self, PoolLayout, ZONE_ENDPOINTS, ZONES};
use crate::measurement::{self, DetectionPlan, PlannedFault};
use crate::{DetectionBench, table};

/// Failures in `--smoke`.
const SMOKE_TRIALS: usize = 6;

/// The share, of 100, that must lie within their predicted 99th percentile.
const INSIDE_PERCENT: usize = 95;

/// By how much the median of window / predicted median may differ from 1.
const MEDIAN_TOLERANCE: f64 = 0.2;

/// With fewer failures the median is not tested.
const MIN_MEDIAN_POINTS: usize = 50;

/// A configuration with its failure.
struct RandomTrial {
    layout: PoolLayout,
    class: &'static FaultClass,
    scope: FaultScope,
    interval: Duration,
}

/// A configuration with the measured window.
struct TrialRow {
    trial: RandomTrial,
    rate_rps: Option<f64>,
    point: CalibrationPoint,
}

/// Draws, predicts and measures; returns whether the predictions held.
pub(crate) fn run(bench: &DetectionBench<'_>, trials: u32) -> io::Result<bool> {
    let args = bench.args;
    let trials = if args.smoke { SMOKE_TRIALS } else { trials as usize };
    let rtt_ms = bench.rtt_ms()?;
    eprintln!("seed {}", args.seed);
    let mut rng = Rng::with_seed(args.seed);
    let (mut rows, mut pause_ms, mut stray_verdicts) = (Vec::new(), 0.0_f64, 0);
    for &with_traffic in args.traffic.modes().iter().cycle() {
        if rows.len() == trials || bench.run_deadline.is_over() {
            break;
        }
        let pools = (trials - rows.len()).min(args.pools as usize);
        let rate_rps = with_traffic.then_some(args.rate);
        let mut group = Vec::new();
        while group.len() < pools {
            let trial = draw_trial(&mut rng, bench.can_drop_packets);
            let spread = predict_spread(&trial, group.len(), (rate_rps, rtt_ms), bench.dir)?;
            // An undetectable failure has no window; another one is drawn.
            group.extend(spread.map(|spread| (trial, spread)));
        }
        let measured = measure(bench, &group, rate_rps)?;
        pause_ms = pause_ms.max(measured.pause_ms);
        stray_verdicts += measured.stray_verdicts;
        for ((trial, spread), run) in group.into_iter().zip(measured.runs) {
            let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
            let steps_ms = spread.quantiles.map(ms).to_vec();
            let point = CalibrationPoint {
                quantiles_ms: steps_ms,
                p99_ms: ms(spread.p99),
                took_ms: run.took_ms,
            };
            eprintln!("{}", describe_trial(&trial, rate_rps, &point));
            rows.push(TrialRow { trial, rate_rps, point });
        }
        eprintln!("{} of {trials}", rows.len());
    }
    let points: Vec<CalibrationPoint> = rows.iter().map(|row| row.point.clone()).collect();
    let overall = Calibration::from_points(&points)
        .ok_or_else(|| io::Error::other("nothing was measured"))?;
    match args.format {
        DetectionReportFormat::Text => {
            print!("{}", as_text(&rows));
            println!(
                "\nThe machine paused for {pause_ms:.1} ms at most; {stray_verdicts} stray verdicts"
            );
        }
        DetectionReportFormat::Json => println!("{:#}", as_json(&rows, pause_ms, stray_verdicts)),
    }
    // A few failures on a busy machine do not test predictions.
    Ok(args.smoke || is_calibrated(&overall))
}

/// The accepted number of windows beyond the 99th percentile: at least one.
fn is_calibrated(overall: &Calibration) -> bool {
    let outside_at_most = (overall.point_count * (100 - INSIDE_PERCENT) / 100).max(1);
    let is_within_p99 = overall.point_count - overall.within_p99 <= outside_at_most;
    let is_centred = (overall.median_ratio - 1.0).abs() <= MEDIAN_TOLERANCE;
    is_within_p99 && (is_centred || overall.point_count < MIN_MEDIAN_POINTS)
}

/// Draws a valid configuration and a failure.
fn draw_trial(rng: &mut Rng, can_drop_packets: bool) -> RandomTrial {
    let is_possible = |class: &&FaultClass| can_drop_packets || !class.mechanism.drops_packets();
    let classes: Vec<&'static FaultClass> = CLASSES.iter().filter(is_possible).collect();
    let class = classes[rng.usize(..classes.len())];
    // Uniform over the orders of magnitude.
    let mut log_uniform = |min: f64, max: f64| (min * (max / min).powf(rng.f64())).round();
    let interval_ms = log_uniform(100.0, 1_500.0);
    let timeout_ms = log_uniform(50.0, interval_ms.min(600.0));
    let fast_ms = log_uniform(20.0, interval_ms.min(300.0));
    let down_ms = log_uniform(timeout_ms, 1_000.0);
    let (down_after, up_after) = (rng.u32(1..=4), rng.u32(1..=3));
    let mut detect: Vec<String> = [
        ("interval", interval_ms),
        ("timeout", timeout_ms),
        ("fast_interval", fast_ms),
        ("down_interval", down_ms),
    ]
    .map(|(name, ms)| format!("{name} = \"{ms}ms\""))
    .into();
    detect.push(format!("down_after = {down_after}"));
    detect.push(format!("up_after = {up_after}"));
    let zones = [(); ZONES].map(|()| rng.usize(1..=ZONE_ENDPOINTS));
    let scope = if rng.bool() { FaultScope::Endpoint } else { FaultScope::Zone };
    let interval = Duration::from_secs_f64(interval_ms / 1e3);
    let probe = class.probe.to_owned();
    RandomTrial { layout: PoolLayout { probe, detect, zone_sizes: zones }, class, scope, interval }
}

/// The predicted window for the pool with this index, by the code of `gapless predict`; `None` if
/// the failure is never detected.
fn predict_spread(
    trial: &RandomTrial,
    pool: usize,
    (rate_rps, rtt_ms): (Option<f64>, f64),
    dir: &Path,
) -> io::Result<Option<WindowSpread>> {
    let mut layouts = vec![PoolLayout::with_defaults(CLASSES[0].probe); pool];
    layouts.push(trial.layout.clone());
    let path = dir.join("predict.toml");
    fs::write(&path, layout::pools_config(&layouts, 1, 2))?;
    let loaded = config::load(&path).map_err(|error| io::Error::other(error.to_string()))?;
    let question = PredictionInput {
        trials: predict::DEFAULT_TRIALS,
        seed: 1,
        round_trip: Duration::from_secs_f64(rtt_ms / 1e3),
        rate_rps,
        warm_up: None,
        latency: LatencyModel::Fixed(predict::DEFAULT_SERVICE_TIME),
        workers: loaded.config.workers,
        threads: available_parallelism()?.get(),
    };
    let known_fault = FaultKind::ALL.into_iter().find(|fault| fault.as_str() == trial.class.name);
    let fault = known_fault.ok_or_else(|| io::Error::other("a class that is not predicted"))?;
    let topology = &loaded.config.topology;
    let (pool, here) = (&topology.pools[pool], topology.local.as_ref());
    let case = FaultCase { scope: trial.scope, fault };
    match predict::predict_row(pool, here, &question, case, Instant::now()).window {
        PredictedWindow::Detected { spread, .. } => Ok(Some(spread)),
        PredictedWindow::Undetected(_) => Ok(None),
    }
}

fn measure(
    bench: &DetectionBench<'_>,
    group: &[(RandomTrial, WindowSpread)],
    rate_rps: Option<f64>,
) -> io::Result<measurement::DetectionMeasurement> {
    let layouts: Vec<PoolLayout> = group.iter().map(|(draw, _)| draw.layout.clone()).collect();
    let plan_fault = |(pool, (draw, spread)): (usize, &(RandomTrial, WindowSpread))| PlannedFault {
        pool,
        mechanism: draw.class.mechanism,
        scope: draw.scope.as_str(),
        interval: draw.interval,
        verdict_timeout: Some((3 * spread.worst).max(measurement::VERDICT_TIMEOUT)),
    };
    let plan = DetectionPlan {
        layouts: &layouts,
        rounds: vec![group.iter().enumerate().map(plan_fault).collect()],
        is_over_tls: true,
        rate_rps,
        warm_up: measurement::WARM_UP,
        program: &bench.args.gapless,
        dir: bench.dir,
    };
    bench.measure(&plan)
}

/// The report of drawn configurations and measured windows.
fn describe_trial(trial: &RandomTrial, rate_rps: Option<f64>, point: &CalibrationPoint) -> String {
    let with = rate_rps.map_or_else(String::new, |rate| format!(", {rate} req/s"));
    let took = point.took_ms.map_or_else(|| "no verdict".to_owned(), |ms| format!("{ms:.1} ms"));
    format!(
        "{} {}{with}: zones {:?}, {}: {took}, predicted median {:.1}, p99 {:.1}",
        trial.scope.as_str(),
        trial.class.name,
        trial.layout.zone_sizes,
        trial.layout.detect.join(", "),
        point.median_ms(),
        point.p99_ms,
    )
}

const HEADINGS: [&str; 7] = [
    "class",
    "traffic",
    "failures",
    "within predicted p99",
    "median of measured / predicted median",
    "mean rank (0.5)",
    "distance from uniform",
];

fn as_text(rows: &[TrialRow]) -> String {
    let mut groups: BTreeMap<(&str, &str), Vec<CalibrationPoint>> = BTreeMap::new();
    for row in rows {
        let with = if row.rate_rps.is_some() { "with" } else { "without" };
        for name in [row.trial.class.name, "~ all", row.trial.scope.as_str()] {
            groups.entry((name, with)).or_default().push(row.point.clone());
        }
        groups.entry(("~ all", "~ both")).or_default().push(row.point.clone());
    }
    let cells = groups.iter().filter_map(|((name, with), points)| {
        let calibration = Calibration::from_points(points)?;
        let trim = |word: &str| word.trim_start_matches("~ ").to_owned();
        Some(vec![
            trim(name),
            trim(with),
            calibration.point_count.to_string(),
            calibration.within_p99.to_string(),
            format!("{:.2}", calibration.median_ratio),
            format!("{:.2}", calibration.mean_rank),
            format!("{:.2}", calibration.kolmogorov_distance),
        ])
    });
    let table = table::render(&HEADINGS, &cells.collect::<Vec<_>>());
    format!("Failures, each in a configuration of its own\n\n{table}")
}

fn as_json(rows: &[TrialRow], pause_ms: f64, stray_verdicts: usize) -> Value {
    let row = |row: &TrialRow| {
        json!({
            "class": row.trial.class.name,
            "scope": row.trial.scope.as_str(),
            "traffic_rps": row.rate_rps,
            "zones": row.trial.layout.zone_sizes,
            "detect": row.trial.layout.detect,
            "predicted_ms": row.point.quantiles_ms,
            "predicted_p99_ms": row.point.p99_ms,
            "took_ms": row.point.took_ms,
            "rank": row.point.rank(),
        })
    };
    json!({
        "failures": rows.iter().map(row).collect::<Vec<_>>(),
        "pause_ms": pause_ms,
        "stray_verdicts": stray_verdicts,
    })
}
