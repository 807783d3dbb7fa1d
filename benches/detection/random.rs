//! Every failure in a configuration of its own, drawn by chance: are predictions right that nobody
//! has looked at?
//!
//! The pools of one instance are the configurations: each has a `detect`, zones and a probe of its
//! own, and what happens in one is nothing to the others.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use fastrand::Rng;
use gapless::config;
use gapless::sim::latency::Latency;
use gapless::sim::predict::{self, Fault, Question, Scope, Spread, Window};
use serde_json::{Value, json};

use crate::args::Format;
use crate::calibration::{Calibration, Point};
use crate::cell::{self, Aim, Plan};
use crate::class::{CLASSES, Class, Means};
use crate::layout::{self, Shape, ZONE_ENDPOINTS, ZONES};
use crate::{Bench, table};

/// Failures in `--smoke`.
const SMOKE_TRIALS: usize = 6;

/// The share, of 100, that must lie within their predicted 99th percentile.
const INSIDE_PERCENT: usize = 95;

/// By how much the median of window / predicted median may differ from 1.
const MEDIAN_WITHIN: f64 = 0.2;

/// So few say nothing of a median.
const MEDIAN_OF: usize = 50;

/// A configuration with the failure that is to come.
struct Draw {
    shape: Shape,
    class: &'static Class,
    scope: Scope,
    interval: Duration,
}

/// The same with what came of it.
struct Row {
    draw: Draw,
    rate_rps: Option<f64>,
    point: Point,
}

/// Draws, predicts, fails, and says whether the predictions held.
pub(crate) fn run(bench: &Bench<'_>, trials: u32) -> io::Result<bool> {
    let args = bench.args;
    let trials = if args.smoke { SMOKE_TRIALS } else { trials as usize };
    let rtt_ms = bench.rtt_ms()?;
    eprintln!("seed {}", args.seed);
    let mut rng = Rng::with_seed(args.seed);
    let (mut rows, mut pause_ms, mut strays) = (Vec::new(), 0.0_f64, 0);
    for &with_traffic in args.traffic.modes().iter().cycle() {
        if rows.len() == trials || bench.watch.is_over() {
            break;
        }
        let pools = (trials - rows.len()).min(args.pools as usize);
        let rate_rps = with_traffic.then_some(args.rate);
        let mut group = Vec::new();
        while group.len() < pools {
            let draw = draw(&mut rng, bench.drops);
            let spread = predict(&draw, group.len(), (rate_rps, rtt_ms), bench.dir)?;
            // What is not noticed so has no window; another one is drawn.
            group.extend(spread.map(|spread| (draw, spread)));
        }
        let measured = measure(bench, &group, rate_rps)?;
        pause_ms = pause_ms.max(measured.pause_ms);
        strays += measured.stray_verdicts;
        for ((draw, spread), run) in group.into_iter().zip(measured.runs) {
            let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
            let steps_ms = spread.quantiles.map(ms).to_vec();
            let point = Point { steps_ms, p99_ms: ms(spread.p99), took_ms: run.took_ms };
            eprintln!("{}", line(&draw, rate_rps, &point));
            rows.push(Row { draw, rate_rps, point });
        }
        eprintln!("{} of {trials}", rows.len());
    }
    let points: Vec<Point> = rows.iter().map(|row| row.point.clone()).collect();
    let all = Calibration::of(&points).ok_or_else(|| io::Error::other("nothing was measured"))?;
    match args.format {
        Format::Text => {
            print!("{}", as_text(&rows));
            println!("\nThe machine paused for {pause_ms:.1} ms at most; {strays} stray verdicts");
        }
        Format::Json => println!("{:#}", as_json(&rows, pause_ms, strays)),
    }
    // A few failures on a machine with other things to do say nothing of predictions.
    Ok(args.smoke || holds(&all))
}

/// Of few, one may lie outside.
fn holds(all: &Calibration) -> bool {
    let outside_at_most = (all.points * (100 - INSIDE_PERCENT) / 100).max(1);
    let is_inside = all.points - all.inside <= outside_at_most;
    let is_centred = (all.median_ratio - 1.0).abs() <= MEDIAN_WITHIN;
    is_inside && (is_centred || all.points < MEDIAN_OF)
}

/// A configuration that `gapless check` takes, and something that goes wrong with it.
fn draw(rng: &mut Rng, drops: bool) -> Draw {
    let is_possible = |class: &&Class| drops || class.means != Means::Drop;
    let classes: Vec<&'static Class> = CLASSES.iter().filter(is_possible).collect();
    let class = classes[rng.usize(..classes.len())];
    // Evenly over the orders of magnitude.
    let mut between = |least: f64, most: f64| (least * (most / least).powf(rng.f64())).round();
    let interval_ms = between(100.0, 1_500.0);
    let timeout_ms = between(50.0, interval_ms.min(600.0));
    let fast_ms = between(20.0, interval_ms.min(300.0));
    let down_ms = between(timeout_ms, 1_000.0);
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
    let scope = if rng.bool() { Scope::Endpoint } else { Scope::Zone };
    let interval = Duration::from_secs_f64(interval_ms / 1e3);
    let probe = class.probe.to_owned();
    Draw { shape: Shape { probe, detect, zones }, class, scope, interval }
}

/// The window that is predicted for it as the pool with this number, by the code that `gapless
/// predict` runs; `None` if it is never noticed.
fn predict(
    draw: &Draw,
    pool: usize,
    (rate_rps, rtt_ms): (Option<f64>, f64),
    dir: &Path,
) -> io::Result<Option<Spread>> {
    let mut shapes = vec![Shape::plain(CLASSES[0].probe); pool];
    shapes.push(draw.shape.clone());
    let path = dir.join("predict.toml");
    fs::write(&path, layout::config_of(&shapes, 1, 2))?;
    let loaded = config::load(&path).map_err(|error| io::Error::other(error.to_string()))?;
    let question = Question {
        trials: predict::DEFAULT_TRIALS,
        seed: 1,
        round_trip: Duration::from_secs_f64(rtt_ms / 1e3),
        rate_rps,
        latency: Latency::Fixed(predict::SERVICE),
        threads: available_parallelism()?.get(),
    };
    let named = Fault::ALL.into_iter().find(|fault| fault.as_str() == draw.class.name);
    let fault = named.ok_or_else(|| io::Error::other("a class that is not predicted"))?;
    let topology = &loaded.config.topology;
    let (pool, here) = (&topology.pools[pool], topology.here.as_ref());
    let asked = (draw.scope, fault);
    match predict::predict_one(pool, here, &question, asked, Instant::now()).window {
        Window::Seen { spread, .. } => Ok(Some(spread)),
        Window::Unseen(_) => Ok(None),
    }
}

fn measure(
    bench: &Bench<'_>,
    group: &[(Draw, Spread)],
    rate_rps: Option<f64>,
) -> io::Result<cell::Measured> {
    let shapes: Vec<Shape> = group.iter().map(|(draw, _)| draw.shape.clone()).collect();
    let aim = |(pool, (draw, spread)): (usize, &(Draw, Spread))| Aim {
        pool,
        means: draw.class.means,
        scope: draw.scope.as_str(),
        interval: draw.interval,
        within: Some((3 * spread.worst).max(cell::VERDICT_WITHIN)),
    };
    let plan = Plan {
        shapes: &shapes,
        rounds: vec![group.iter().enumerate().map(aim).collect()],
        is_over_tls: true,
        rate_rps,
        warm_up: cell::WARM_UP,
        program: &bench.args.gapless,
        dir: bench.dir,
    };
    bench.measure(&plan)
}

/// What was drawn and what came of it.
fn line(draw: &Draw, rate_rps: Option<f64>, point: &Point) -> String {
    let with = rate_rps.map_or_else(String::new, |rate| format!(", {rate} req/s"));
    let took = point.took_ms.map_or_else(|| "no verdict".to_owned(), |ms| format!("{ms:.1} ms"));
    format!(
        "{} {}{with}: zones {:?}, {}: {took}, predicted median {:.1}, p99 {:.1}",
        draw.scope.as_str(),
        draw.class.name,
        draw.shape.zones,
        draw.shape.detect.join(", "),
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

fn as_text(rows: &[Row]) -> String {
    let mut groups: BTreeMap<(&str, &str), Vec<Point>> = BTreeMap::new();
    for row in rows {
        let with = if row.rate_rps.is_some() { "with" } else { "without" };
        for name in [row.draw.class.name, "~ all", row.draw.scope.as_str()] {
            groups.entry((name, with)).or_default().push(row.point.clone());
        }
        groups.entry(("~ all", "~ both")).or_default().push(row.point.clone());
    }
    let cells = groups.iter().filter_map(|((name, with), points)| {
        let of = Calibration::of(points)?;
        let trim = |word: &str| word.trim_start_matches("~ ").to_owned();
        Some(vec![
            trim(name),
            trim(with),
            of.points.to_string(),
            of.inside.to_string(),
            format!("{:.2}", of.median_ratio),
            format!("{:.2}", of.mean_rank),
            format!("{:.2}", of.distance),
        ])
    });
    let table = table::render(&HEADINGS, &cells.collect::<Vec<_>>());
    format!("Failures, each in a configuration of its own\n\n{table}")
}

fn as_json(rows: &[Row], pause_ms: f64, strays: usize) -> Value {
    let row = |row: &Row| {
        json!({
            "class": row.draw.class.name,
            "scope": row.draw.scope.as_str(),
            "traffic_rps": row.rate_rps,
            "zones": row.draw.shape.zones,
            "detect": row.draw.shape.detect,
            "predicted_ms": row.point.steps_ms,
            "predicted_p99_ms": row.point.p99_ms,
            "took_ms": row.point.took_ms,
            "rank": row.point.rank(),
        })
    };
    json!({
        "failures": rows.iter().map(row).collect::<Vec<_>>(),
        "pause_ms": pause_ms,
        "stray_verdicts": strays,
    })
}
