//! `gapless predict`: how long will each kind of failure stay unnoticed?

use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::config::model::Config;
use crate::logic::outcome::Class;
use crate::logic::topology::{Detect, PoolSpec};
use crate::sim::predict::{self, Prediction, Question, Row, Scope, Spread, Unseen, Window};

use super::check::Format;

/// What is to be predicted, and how it is written.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Requests a second over each pool.
    pub rate: Option<f64>,
    /// Trials of each class and scope.
    pub trials: u32,
    /// Equal seeds give equal predictions.
    pub seed: u64,
    /// From here to an endpoint and back.
    pub rtt: Duration,
    /// How it is written.
    pub format: Format,
}

impl Options {
    /// What is asked when nothing else is said.
    #[must_use]
    pub fn new(format: Format) -> Self {
        let rtt = Duration::from_millis(1);
        Self { rate: None, trials: predict::DEFAULT_TRIALS, seed: 1, rtt, format }
    }
}

/// Predicts the detection windows of every pool and writes them to `out`.
///
/// # Errors
/// When `out` cannot be written to.
pub fn predict(config: &Config, options: &Options, out: &mut impl Write) -> io::Result<()> {
    let question = Question {
        trials: options.trials,
        seed: options.seed,
        round_trip: options.rtt,
        rate_rps: options.rate.filter(|rate| *rate > 0.0),
    };
    let here = config.topology.here.as_ref();
    let base = Instant::now();
    let pools = config.topology.pools.iter();
    let predictions = pools.map(|pool| (pool, predict::predict(pool, here, &question, base)));
    match options.format {
        Format::Json => {
            let rows: Vec<Value> = predictions.flat_map(|(_, of_pool)| rows(&of_pool)).collect();
            writeln!(out, "{}", json!({ "pools": rows }))
        }
        Format::Text { .. } => {
            for (index, (pool, prediction)) in predictions.enumerate() {
                if index > 0 {
                    writeln!(out)?;
                }
                text(pool, &prediction, out)?;
            }
            Ok(())
        }
    }
}

fn rows(prediction: &Prediction) -> Vec<Value> {
    let zone = prediction.zone.to_string();
    let row = |row: &Row| {
        let spread = spread(row);
        let ms_of = |part: fn(&Spread) -> Duration| spread.map(|spread| ms(part(spread)));
        let (within, unseen) = match row.window {
            Window::Seen { within_closed_form, .. } => (within_closed_form, None),
            Window::Unseen(Unseen::ProbePasses) => (None, Some("probe_passes")),
            Window::Unseen(Unseen::NeverUp) => (None, Some("never_up")),
        };
        json!({
            "pool": *prediction.pool,
            "scope": row.scope.as_str(),
            "zone": zone,
            "class": row.class.as_str(),
            "traffic_rps": row.traffic_rps,
            "best_ms": ms_of(|s| s.best),
            "median_ms": ms_of(|s| s.median),
            "p99_ms": ms_of(|s| s.p99),
            "worst_ms": ms_of(|s| s.worst),
            "closed_form": {
                "best_ms": ms(row.closed_form.best),
                "worst_ms": ms(row.closed_form.worst),
            },
            "within_closed_form": within,
            "unseen": unseen,
            "trials": spread.map_or(0, |spread| spread.trials),
        })
    };
    prediction.rows.iter().map(row).collect()
}

fn text(pool: &PoolSpec, prediction: &Prediction, out: &mut impl Write) -> io::Result<()> {
    let Detect { interval, timeout, fast_interval, down_after, .. } = pool.detect;
    writeln!(
        out,
        "pool {}: probes every {interval:?} (suspect: {fast_interval:?}), timeout {timeout:?}, \
         down after {down_after}",
        prediction.pool
    )?;
    writeln!(out, "  from onset to verdict, in ms")?;
    let mut of_traffic = None;
    for row in &prediction.rows {
        if of_traffic != Some(row.traffic_rps) {
            of_traffic = Some(row.traffic_rps);
            heading(row.traffic_rps, out)?;
        }
        line(row, out)?;
    }
    writeln!(out)?;
    meaning(prediction, out)
}

fn heading(traffic_rps: Option<f64>, out: &mut impl Write) -> io::Result<()> {
    let with = match traffic_rps {
        None => "probes alone".to_owned(),
        Some(rate) => format!("with {rate} req/s"),
    };
    writeln!(
        out,
        "\n  {with:<22} {:>8} {:>8} {:>8} {:>8}   closed form, probes alone",
        "best", "median", "p99", "worst"
    )
}

fn line(row: &Row, out: &mut impl Write) -> io::Result<()> {
    let name = format!("{} {}", row.scope.as_str(), row.class);
    let closed_form = format!("{:.1}..{:.1}", ms(row.closed_form.best), ms(row.closed_form.worst));
    match row.window {
        Window::Seen { spread, within_closed_form } => {
            let leaves = if within_closed_form == Some(false) { " (left!)" } else { "" };
            writeln!(
                out,
                "  {name:<22} {:>8.1} {:>8.1} {:>8.1} {:>8.1}   {closed_form}{leaves}",
                ms(spread.best),
                ms(spread.median),
                ms(spread.p99),
                ms(spread.worst),
            )
        }
        Window::Unseen(_) => {
            writeln!(out, "  {name:<22} {:>8} {0:>8} {0:>8} {:>8}", "-", "never")
        }
    }
}

/// The same in words: what it means for requests, and what is never noticed.
fn meaning(prediction: &Prediction, out: &mut impl Write) -> io::Result<()> {
    let find = |scope, class, with_traffic| {
        prediction.rows.iter().find(|row| {
            row.scope == scope && row.class == class && row.traffic_rps.is_some() == with_traffic
        })
    };
    let zone = format!("The zone {}", prediction.zone);
    let subjects = [(Scope::Endpoint, "An endpoint"), (Scope::Zone, zone.as_str())];
    for (scope, subject) in subjects {
        for (class, does) in [(Class::Refused, "refuses"), (Class::Silent, "is silent")] {
            let Some(row) = find(scope, class, false) else { continue };
            let Some(alone) = spread(row) else { continue };
            write!(
                out,
                "  {subject} that {does} gets requests for at most {}, half of the time {}",
                words(row.closed_form.worst),
                words(alone.median)
            )?;
            let busy = find(scope, class, true);
            if let Some((rate, busy)) = busy.and_then(|row| Some((row.traffic_rps?, spread(row)?)))
            {
                write!(
                    out,
                    "; with {rate} req/s 99 times of 100 at most {}, half of the time {}",
                    words(busy.p99),
                    words(busy.median)
                )?;
            }
            writeln!(out, ".")?;
        }
    }
    unseen(prediction, out)
}

fn unseen(prediction: &Prediction, out: &mut impl Write) -> io::Result<()> {
    let of = |why: Unseen| {
        let rows = prediction.rows.iter().filter(|row| row.scope == Scope::Endpoint);
        let alone = rows.filter(move |row| row.traffic_rps.is_none());
        alone.filter(move |row| row.window == Window::Unseen(why)).map(|row| row.class.as_str())
    };
    if of(Unseen::NeverUp).next().is_some() {
        return writeln!(
            out,
            "  No endpoint will ever be up: an answer takes longer than the probe's timeout."
        );
    }
    let passed: Vec<_> = of(Unseen::ProbePasses).collect();
    if passed.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "  Never noticed: {}; the pool's probe passes all the same. An HTTP probe that expects a \
         status sees them.",
        passed.join(", ")
    )
}

fn spread(row: &Row) -> Option<&Spread> {
    match &row.window {
        Window::Seen { spread, .. } => Some(spread),
        Window::Unseen(_) => None,
    }
}

/// Milliseconds, to the microsecond.
fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Two digits are all that a sentence needs.
fn words(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds >= 0.9995 => format!("{seconds:.1} s"),
        seconds => format!("{:.0} ms", seconds * 1e3),
    }
}
