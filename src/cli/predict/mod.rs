//! `gapless predict`: how long will each kind of failure stay unnoticed, and how often is a healthy
//! endpoint put down?

pub mod falsely;
mod latency;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::config::model::Config;
use crate::logic::topology::{Detect, PoolSpec};
use crate::logic::window::Bounds;
use crate::sim::latency::Latency;
use crate::sim::predict::{self, Fault, Prediction, Question, Row, Scope, Spread, Unseen, Window};

use super::check::Format;

/// What is asked on the command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Predict with this much traffic too, in requests per second over each pool
    #[arg(long)]
    rate: Option<f64>,
    /// Trials of each fault and scope
    #[arg(long, default_value_t = predict::DEFAULT_TRIALS, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    trials: u32,
    /// Equal seeds give equal predictions
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// From here to an endpoint and back, in milliseconds
    #[arg(long, default_value_t = 1.0)]
    rtt_ms: f64,
    /// How often is an endpoint put down of which nothing fails?
    #[arg(long)]
    false_verdicts: bool,
    /// The share of packets that are lost, of probes and of traffic
    #[arg(long, requires = "false_verdicts", default_value = "0%", value_parser = latency::percent)]
    loss: f64,
    /// The same of traffic, if it is another
    #[arg(long, requires = "false_verdicts", value_parser = latency::percent)]
    traffic_loss: Option<f64>,
    /// What endpoints take to answer: p50=2ms,p99=20ms,max=1s, or a file with a histogram
    #[arg(long, requires = "false_verdicts", default_value = "1ms", value_parser = latency::latency)]
    latency: Latency,
    /// Virtual hours of each pool [default: as many as take some seconds]
    #[arg(long, requires = "false_verdicts", value_parser = hours)]
    hours: Option<f64>,
}

fn hours(given: &str) -> Result<f64, String> {
    let hours = given.parse().ok().filter(|hours: &f64| (1e-3..=1e7).contains(hours));
    hours.ok_or_else(|| "write a number of hours, as 1000".to_owned())
}

/// Answers what the command line asks and writes it to `out`.
///
/// # Errors
/// When `out` cannot be written to.
pub fn run(
    config: &Config,
    arguments: &Arguments,
    format: Format,
    out: &mut impl Write,
) -> io::Result<()> {
    let Arguments { rate, trials, seed, rtt_ms, .. } = *arguments;
    let rtt = Duration::try_from_secs_f64(rtt_ms / 1e3).unwrap_or_default();
    let options = Options { rate, trials, seed, rtt, format };
    if !arguments.false_verdicts {
        return predict(config, &options, out);
    }
    let world = falsely::World {
        hours: arguments.hours,
        probe_loss: arguments.loss,
        traffic_loss: arguments.traffic_loss.unwrap_or(arguments.loss),
        latency: arguments.latency.clone(),
    };
    falsely::false_verdicts(config, &options, &world, out)
}

/// Worlds that run side by side.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// What is to be predicted, and how it is written.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Requests a second over each pool.
    pub rate: Option<f64>,
    /// Trials of each fault and scope.
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
        threads: threads(),
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
            Window::Unseen(why) => (None, Some(word(why))),
        };
        let closed_form =
            |Bounds { best, worst }: Bounds| json!({ "best_ms": ms(best), "worst_ms": ms(worst) });
        json!({
            "pool": *prediction.pool,
            "scope": row.scope.as_str(),
            "zone": zone,
            "class": row.fault.as_str(),
            "traffic_rps": row.traffic_rps,
            "best_ms": ms_of(|s| s.best),
            "median_ms": ms_of(|s| s.median),
            "p99_ms": ms_of(|s| s.p99),
            "worst_ms": ms_of(|s| s.worst),
            "closed_form": row.closed_form.map(closed_form),
            "within_closed_form": within,
            "unseen": unseen,
            "trials": spread.map_or(0, |spread| spread.trials),
            "unnoticed": spread.map(|spread| spread.unnoticed),
        })
    };
    prediction.rows.iter().map(row).collect()
}

/// Why there is no window, in a word.
fn word(why: Unseen) -> &'static str {
    match why {
        Unseen::ProbePasses => "probe_passes",
        Unseen::NeedsTraffic => "needs_traffic",
        Unseen::NotNoticed => "not_noticed",
        Unseen::NeverUp => "never_up",
    }
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
    let name = format!("{} {}", row.scope.as_str(), row.fault);
    let closed_form = row.closed_form.map_or_else(
        || "-".to_owned(),
        |bounds| format!("{:.1}..{:.1}", ms(bounds.best), ms(bounds.worst)),
    );
    match row.window {
        Window::Seen { spread, within_closed_form } => {
            let leaves = if within_closed_form == Some(false) { " (left!)" } else { "" };
            write!(
                out,
                "  {name:<22} {:>8.1} {:>8.1} {:>8.1} {:>8.1}   {closed_form}{leaves}",
                ms(spread.best),
                ms(spread.median),
                ms(spread.p99),
                ms(spread.worst),
            )?;
            match spread.unnoticed {
                0 => writeln!(out),
                some => {
                    writeln!(out, "   {some} of {} not noticed when waiting ended", spread.trials)
                }
            }
        }
        Window::Unseen(why) => {
            let why = word(why);
            writeln!(out, "  {name:<22} {:>8} {0:>8} {0:>8} {0:>8}   {why}", "-")
        }
    }
}

/// The same in words: what it means for requests, and what is never noticed.
fn meaning(prediction: &Prediction, out: &mut impl Write) -> io::Result<()> {
    let find = |scope, fault, with_traffic| {
        prediction.rows.iter().find(|row| {
            row.scope == scope && row.fault == fault && row.traffic_rps.is_some() == with_traffic
        })
    };
    let zone = format!("The zone {}", prediction.zone);
    let subjects = [(Scope::Endpoint, "An endpoint"), (Scope::Zone, zone.as_str())];
    for (scope, subject) in subjects {
        for (fault, does) in [(Fault::Refused, "refuses"), (Fault::Hang, "hangs")] {
            let Some(row) = find(scope, fault, false) else { continue };
            let (Some(alone), Some(closed_form)) = (spread(row), row.closed_form) else { continue };
            write!(
                out,
                "  {subject} that {does} gets requests for at most {}, half of the time {}",
                words(closed_form.worst),
                words(alone.median)
            )?;
            let busy = find(scope, fault, true);
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
    let has_traffic = prediction.rows.iter().any(|row| row.traffic_rps.is_some());
    let of = |why: Unseen| {
        let rows = prediction.rows.iter().filter(|row| row.scope == Scope::Endpoint);
        let asked = rows.filter(|row| row.traffic_rps.is_some() == has_traffic);
        let unseen = asked.filter(|row| row.window == Window::Unseen(why));
        unseen.map(|row| row.fault.as_str()).collect::<Vec<_>>()
    };
    if !of(Unseen::NeverUp).is_empty() {
        return writeln!(
            out,
            "  No endpoint will ever be up: an answer takes longer than the probe's timeout."
        );
    }
    let reasons = [
        (
            Unseen::ProbePasses,
            "the pool's probe passes all the same. One over HTTP that expects a status and a body \
             sees them.",
        ),
        (Unseen::NeedsTraffic, "no probe sees it. Traffic does: ask with --rate."),
        (Unseen::NotNoticed, "so little traffic, and a probe that passes, make no verdict."),
    ];
    for (why, meaning) in reasons {
        let faults = of(why);
        if !faults.is_empty() {
            writeln!(out, "  Not noticed: {}; {meaning}", faults.join(", "))?;
        }
    }
    Ok(())
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
