//! `gapless predict`: how long will each kind of failure stay unnoticed, and how often is a healthy
//! endpoint put down?

pub mod falsely;
pub(in crate::cli) mod latency;
pub mod observed;
pub(in crate::cli) mod text;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::config::model::Config;
use crate::logic::discovery::STAND_INS;
use crate::logic::topology::PoolSpec;
use crate::logic::window::Bounds;
use crate::sim::latency::Latency;
use crate::sim::predict::{self, Prediction, Question, Row, Spread, Unseen, Window};

use super::check::Format;
use observed::Observed;

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
    /// What endpoints take to answer: p50=2ms,p99=20ms,max=1s, a file with a histogram or a page of
    /// metrics, or the admin listener of a running instance (http://127.0.0.1:9900)
    #[arg(long, default_value = "1ms", value_parser = observed::observed)]
    latency: Observed,
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
    let latency = arguments.latency.clone();
    let options = Options { rate, trials, seed, rtt, latency, format };
    if matches!(format, Format::Text { .. }) {
        super::check::stand_ins(config, out)?;
    }
    if !arguments.false_verdicts {
        return predict(config, &options, out);
    }
    let world = falsely::World {
        hours: arguments.hours,
        probe_loss: arguments.loss,
        traffic_loss: arguments.traffic_loss.unwrap_or(arguments.loss),
    };
    falsely::false_verdicts(config, &options, &world, out)
}

/// Worlds that run side by side.
pub(in crate::cli) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// What is to be predicted, and how it is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// Requests a second over each pool.
    pub rate: Option<f64>,
    /// Trials of each fault and scope.
    pub trials: u32,
    /// Equal seeds give equal predictions.
    pub seed: u64,
    /// From here to an endpoint and back.
    pub rtt: Duration,
    /// What endpoints take to answer.
    pub latency: Observed,
    /// How it is written.
    pub format: Format,
}

impl Options {
    /// What is asked when nothing else is said.
    #[must_use]
    pub fn new(format: Format) -> Self {
        let rtt = Duration::from_millis(1);
        let latency = Latency::Fixed(predict::SERVICE).into();
        Self { rate: None, trials: predict::DEFAULT_TRIALS, seed: 1, rtt, latency, format }
    }

    /// What endpoints of a pool take to answer; the usual where nothing is known.
    fn latency_of(&self, pool: &PoolSpec) -> Latency {
        let known = self.latency.latency(&pool.name);
        known.cloned().unwrap_or(Latency::Fixed(predict::SERVICE))
    }

    fn question(&self, pool: &PoolSpec) -> Question {
        Question {
            trials: self.trials,
            seed: self.seed,
            round_trip: self.rtt,
            rate_rps: self.rate.filter(|rate| *rate > 0.0),
            latency: self.latency_of(pool),
            threads: threads(),
        }
    }
}

/// Predicts the detection windows of every pool and writes them to `out`.
///
/// # Errors
/// When `out` cannot be written to.
pub fn predict(config: &Config, options: &Options, out: &mut impl Write) -> io::Result<()> {
    let here = config.topology.here.as_ref();
    let base = Instant::now();
    let pools = config.topology.pools.iter();
    let predictions =
        pools.map(|pool| (pool, predict::predict(pool, here, &options.question(pool), base)));
    match options.format {
        Format::Json => {
            let rows: Vec<Value> = predictions.flat_map(|(_, of_pool)| rows(&of_pool)).collect();
            let stand_ins = config.dns.entries.len() * STAND_INS;
            writeln!(out, "{}", json!({ "pools": rows, "stand_ins": stand_ins }))
        }
        Format::Text { .. } => {
            for (index, (pool, prediction)) in predictions.enumerate() {
                if index > 0 {
                    writeln!(out)?;
                }
                text::pool(pool, &prediction, out)?;
            }
            Ok(())
        }
    }
}

/// The rows of one pool as JSON.
pub(in crate::cli) fn rows(prediction: &Prediction) -> Vec<Value> {
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
            "quantiles_ms": spread.map(|spread| spread.quantiles.map(ms)),
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
pub(in crate::cli) fn word(why: Unseen) -> &'static str {
    match why {
        Unseen::ProbePasses => "probe_passes",
        Unseen::NeedsTraffic => "needs_traffic",
        Unseen::NotNoticed => "not_noticed",
        Unseen::NeverUp => "never_up",
    }
}

fn spread(row: &Row) -> Option<&Spread> {
    match &row.window {
        Window::Seen { spread, .. } => Some(spread),
        Window::Unseen(_) => None,
    }
}

/// Milliseconds, to the microsecond.
pub(in crate::cli) fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
