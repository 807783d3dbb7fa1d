//! Does what `gapless tune` finds meet its target, when endpoints fail for real?

use std::fs;
use std::io;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::args::Format;
use crate::cell::{Aim, Plan};
use crate::class::{CLASSES, Class};
use crate::layout::{self, Shape};
use crate::predicted::{self, Predicted};
use crate::{Bench, judge, rounds, table};

/// What is asked for, in milliseconds.
const TARGETS_MS: [u64; 3] = [1_000, 300, 150];

/// What fails: at once, never, and with a word.
const NAMES: [&str; 3] = ["refused", "hang", "status_all"];

/// Of the target and its classes, in `--smoke`.
const SMOKE: usize = 1;

/// Failures of each target and class in `--smoke`.
const SMOKE_RUNS: usize = 4;

/// What an endpoint takes of a probe's time.
const SERVICE_MS: f64 = 1.0;

/// What came of one target and class.
struct Row {
    target_ms: u64,
    class: &'static str,
    detect: String,
    predicted: Predicted,
    took_ms: Vec<Option<f64>>,
    pause_ms: f64,
    strays: usize,
}

impl Row {
    fn met(&self) -> usize {
        judge::inside(&self.took_ms, Some(self.target_ms as f64))
    }

    fn is_good(&self) -> bool {
        judge::holds(&self.took_ms, Some(self.target_ms as f64))
    }

    fn p99_ms(&self) -> Option<f64> {
        match self.predicted {
            Predicted::Seen { p99_ms, .. } => Some(p99_ms),
            Predicted::Unseen(_) | Predicted::Missing => None,
        }
    }
}

/// Tunes, fails endpoints, and says whether every target was met often enough.
pub(crate) fn run(bench: &Bench<'_>) -> io::Result<bool> {
    let args = bench.args;
    let probe_ms = bench.rtt_ms()?;
    let targets = if args.smoke { &TARGETS_MS[..SMOKE] } else { &TARGETS_MS[..] };
    let names = if args.smoke { &NAMES[..SMOKE] } else { &NAMES[..] };
    let mut rows = Vec::new();
    let mut beyond = Vec::new();
    for &target_ms in targets {
        let shape = Shape::plain(CLASSES[0].probe);
        let (detect, interval) = match tune(bench, &shape, target_ms, probe_ms)? {
            Tuned::Met(detect, interval) => (detect, interval),
            Tuned::Beyond(why) => {
                beyond.push((target_ms, why));
                continue;
            }
        };
        eprintln!("target {target_ms} ms: {}", detect.join(", "));
        let shape = Shape { detect, ..shape };
        let question = (args.rate, probe_ms);
        let predictions = predicted::predict(&args.gapless, &shape, question, bench.dir)?;
        for class in CLASSES.iter().filter(|class| names.contains(&class.name)) {
            let predicted = predicted::row_of(&predictions, class, "endpoint", false);
            rows.push(measure(bench, &shape, (target_ms, interval), class, predicted)?);
        }
    }
    match args.format {
        Format::Text => print!("{}", as_text(&rows, &beyond)),
        Format::Json => println!("{:#}", as_json(&rows, &beyond)),
    }
    // A few failures on a machine with other things to do say nothing of windows.
    Ok(args.smoke || beyond.is_empty() && rows.iter().all(Row::is_good))
}

fn measure(
    bench: &Bench<'_>,
    shape: &Shape,
    (target_ms, interval): (u64, Duration),
    class: &'static Class,
    predicted: Predicted,
) -> io::Result<Row> {
    let args = bench.args;
    let runs = if args.smoke { SMOKE_RUNS } else { args.runs as usize };
    let shapes = vec![shape.clone(); (args.pools as usize).min(runs)];
    let aim = |pool: usize| Aim::new(pool, (class, "endpoint"), interval, &predicted);
    let plan = Plan {
        shapes: &shapes,
        rounds: rounds(shapes.len(), runs, aim),
        is_over_tls: false,
        rate_rps: None,
        warm_up: Duration::ZERO,
        program: &args.gapless,
        dir: bench.dir,
    };
    eprintln!("  {}", class.name);
    let measured = bench.measure(&plan)?;
    Ok(Row {
        target_ms,
        class: class.name,
        detect: shape.detect.join(", "),
        predicted,
        took_ms: measured.runs.iter().map(|run| run.took_ms).collect(),
        pause_ms: measured.pause_ms,
        strays: measured.stray_verdicts,
    })
}

/// What `gapless tune` says of a target.
enum Tuned {
    /// The lines to paste, and the interval.
    Met(Vec<String>, Duration),
    /// It cannot be met here, and why.
    Beyond(String),
}

/// Asks `gapless tune`.
fn tune(bench: &Bench<'_>, shape: &Shape, target_ms: u64, probe_ms: f64) -> io::Result<Tuned> {
    let config = bench.dir.join("tune.toml");
    fs::write(&config, layout::config_of(std::slice::from_ref(shape), 1, 2))?;
    // A probe is two round trips and the endpoint's time.
    let rtt_ms = ((probe_ms - SERVICE_MS) / 2.0).max(0.05);
    let mut command = Command::new(&bench.args.gapless);
    command.arg("tune").arg(&config).args(["--format", "json"]);
    command.args(["--target", &format!("{target_ms}ms"), "--rtt-ms", &rtt_ms.to_string()]);
    let output = command.output()?;
    let said: Value = serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        io::Error::other(format!("gapless tune: {}", said.trim()))
    })?;
    let pool = &said["pools"][0];
    if said["met"] != true {
        return Ok(Tuned::Beyond(pool["binding"].to_string()));
    }
    // The table's head names the only pool of this configuration; its lines serve for all pools.
    let lines = pool["toml"].as_str().unwrap_or_default().lines().skip(1).map(str::to_owned);
    let interval_ms = pool["after"]["detect"]["interval_ms"].as_f64().unwrap_or(1_000.0);
    Ok(Tuned::Met(lines.collect(), Duration::from_secs_f64(interval_ms / 1e3)))
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

fn as_text(rows: &[Row], beyond: &[(u64, String)]) -> String {
    let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
    let row = |row: &Row| {
        let mut seen: Vec<f64> = row.took_ms.iter().copied().flatten().collect();
        seen.sort_by(f64::total_cmp);
        let mut cells = vec![row.class.to_owned(), row.detect.clone(), row.target_ms.to_string()];
        cells.extend([figure(row.p99_ms()), row.took_ms.len().to_string()]);
        cells.extend([0.5, 0.99, 1.0].map(|share| figure(judge::quantile(&seen, share))));
        cells.push(row.met().to_string());
        cells.push(if row.is_good() { "ok" } else { "FAILED" }.to_owned());
        cells
    };
    let table = table::render(&HEADINGS, &rows.iter().map(row).collect::<Vec<_>>());
    let pause_ms = rows.iter().map(|row| row.pause_ms).fold(0.0, f64::max);
    let strays: usize = rows.iter().map(|row| row.strays).sum();
    let beyond: String = beyond
        .iter()
        .map(|(target_ms, why)| format!("A target of {target_ms} ms cannot be met here: {why}\n"))
        .collect();
    format!(
        "From failure to verdict, in ms\n\n{table}\n{beyond}The machine paused for {pause_ms:.1} ms at most; \
         {strays} verdicts on endpoints that had not failed\n"
    )
}

fn as_json(rows: &[Row], beyond: &[(u64, String)]) -> Value {
    let row = |row: &Row| {
        json!({
            "target_ms": row.target_ms,
            "class": row.class,
            "detect": row.detect,
            "predicted": row.predicted,
            "took_ms": row.took_ms,
            "within_target": row.met(),
            "pause_ms": row.pause_ms,
            "stray_verdicts": row.strays,
            "met": row.is_good(),
        })
    };
    let beyond = beyond.iter().map(|(ms, why)| json!({ "target_ms": ms, "why": why }));
    json!({
        "tuned": rows.iter().map(row).collect::<Vec<_>>(),
        "cannot_be_met": beyond.collect::<Vec<_>>(),
    })
}
