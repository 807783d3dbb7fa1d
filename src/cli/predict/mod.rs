//! `gapless predict`: predicts how long each kind of failure stays undetected, and how often a
//! healthy endpoint gets a verdict down.

pub mod false_positives;
pub(in crate::cli) mod latency;
pub mod observed;
pub(in crate::cli) mod text;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::config::model::Config;
use crate::logic::discovery::PLACEHOLDERS_PER_NAME;
use crate::logic::model::topology::PoolSpec;
use crate::logic::probing::detection_window::DetectionBounds;
use crate::sim::latency::LatencyModel;
use crate::sim::predict::{
    self, PredictedWindow, Prediction, PredictionInput, PredictionRow, UndetectedReason,
    WindowSpread,
};

use super::check::OutputFormat;
use observed::ObservedLatency;

/// The arguments of `gapless predict`.
#[derive(Clone, Debug, clap::Args)]
pub struct PredictArguments {
    /// Predict with this traffic too, in requests per second to each pool
    #[arg(long)]
    rate: Option<f64>,
    /// Number of trials of each fault and scope
    #[arg(long, default_value_t = predict::DEFAULT_TRIALS, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    trials: u32,
    /// Seed of the simulation; equal seeds give equal predictions
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Round trip to an endpoint, in milliseconds
    #[arg(long, default_value_t = 1.0)]
    rtt_ms: f64,
    /// Predict how often a healthy endpoint gets a verdict down, in place of windows
    #[arg(long)]
    false_verdicts: bool,
    /// The share of lost packets, of probes and of traffic
    #[arg(long, requires = "false_verdicts", default_value = "0%", value_parser = latency::parse_percent)]
    loss: f64,
    /// The share of lost packets of traffic [default: as --loss]
    #[arg(long, requires = "false_verdicts", value_parser = latency::parse_percent)]
    traffic_loss: Option<f64>,
    /// The latency of endpoints: p50=2ms,p99=20ms,max=1s, a file with a histogram or a page of
    /// metrics, or the admin listener of a running instance (http://127.0.0.1:9900)
    #[arg(long, default_value = "1ms", value_parser = observed::parse_observed)]
    latency: ObservedLatency,
    /// Simulated hours of each pool [default: as many as take a few seconds]
    #[arg(long, requires = "false_verdicts", value_parser = parse_hours)]
    hours: Option<f64>,
}

fn parse_hours(given: &str) -> Result<f64, String> {
    let hours = given.parse().ok().filter(|hours: &f64| (1e-3..=1e7).contains(hours));
    hours.ok_or_else(|| "write a number of hours, as 1000".to_owned())
}

/// Runs the prediction and writes it to `out`.
///
/// # Errors
/// When `out` cannot be written to.
pub fn run(
    config: &Config,
    arguments: &PredictArguments,
    format: OutputFormat,
    out: &mut impl Write,
) -> io::Result<()> {
    let PredictArguments { rate, trials, seed, rtt_ms, .. } = *arguments;
    let rtt = Duration::try_from_secs_f64(rtt_ms / 1e3).unwrap_or_default();
    let latency = arguments.latency.clone();
    let options = PredictOptions { rate, trials, seed, rtt, latency, format };
    if matches!(format, OutputFormat::Text { .. }) {
        super::check::write_placeholder_note(config, out)?;
    }
    if !arguments.false_verdicts {
        return predict(config, &options, out);
    }
    let assumptions = false_positives::LossAssumptions {
        hours: arguments.hours,
        probe_loss: arguments.loss,
        traffic_loss: arguments.traffic_loss.unwrap_or(arguments.loss),
    };
    false_positives::predict_false_verdicts(config, &options, &assumptions, out)
}

/// The number of simulations that run in parallel.
pub(in crate::cli) fn thread_count() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The parameters of a prediction, and the format of the output.
#[derive(Clone, Debug)]
pub struct PredictOptions {
    /// Requests per second to each pool.
    pub rate: Option<f64>,
    /// Number of trials of each fault and scope.
    pub trials: u32,
    /// Seed of the simulation; equal seeds give equal predictions.
    pub seed: u64,
    /// The round trip to an endpoint.
    pub rtt: Duration,
    /// The latency of endpoints.
    pub latency: ObservedLatency,
    /// The format of the output.
    pub format: OutputFormat,
}

impl PredictOptions {
    /// The defaults of the command line.
    pub fn new(format: OutputFormat) -> Self {
        let rtt = Duration::from_millis(1);
        let latency = LatencyModel::Fixed(predict::DEFAULT_SERVICE_TIME).into();
        Self { rate: None, trials: predict::DEFAULT_TRIALS, seed: 1, rtt, latency, format }
    }

    /// The latency of a pool's endpoints; the default where it was not measured.
    fn pool_latency(&self, pool: &PoolSpec) -> LatencyModel {
        let known = self.latency.latency(&pool.name);
        known.cloned().unwrap_or(LatencyModel::Fixed(predict::DEFAULT_SERVICE_TIME))
    }

    fn input(&self, pool: &PoolSpec, workers: usize) -> PredictionInput {
        PredictionInput {
            trials: self.trials,
            seed: self.seed,
            round_trip: self.rtt,
            rate_rps: self.rate.filter(|rate| *rate > 0.0),
            warm_up: None,
            latency: self.pool_latency(pool),
            workers,
            threads: thread_count(),
        }
    }
}

/// Predicts the detection windows of every pool and writes them to `out`.
///
/// # Errors
/// When `out` cannot be written to.
pub fn predict(config: &Config, options: &PredictOptions, out: &mut impl Write) -> io::Result<()> {
    let here = config.topology.local.as_ref();
    let base = Instant::now();
    let pools = config.topology.pools.iter();
    let predictions = pools.map(|pool| {
        (pool, predict::predict(pool, here, &options.input(pool, config.workers), base))
    });
    match options.format {
        OutputFormat::Json => {
            let rows: Vec<Value> =
                predictions.flat_map(|(_, prediction)| rows_json(&prediction)).collect();
            let stand_ins = config.dns.entries.len() * PLACEHOLDERS_PER_NAME;
            writeln!(out, "{}", json!({ "pools": rows, "stand_ins": stand_ins }))
        }
        OutputFormat::Text { .. } => {
            for (index, (pool, prediction)) in predictions.enumerate() {
                if index > 0 {
                    writeln!(out)?;
                }
                text::write_pool(pool, &prediction, out)?;
            }
            Ok(())
        }
    }
}

/// The rows of one pool as JSON.
pub(in crate::cli) fn rows_json(prediction: &Prediction) -> Vec<Value> {
    let zone = prediction.zone.to_string();
    let row = |row: &PredictionRow| {
        let spread = seen_spread(row);
        let ms_of = |part: fn(&WindowSpread) -> Duration| spread.map(|spread| to_ms(part(spread)));
        let (within, unseen) = match row.window {
            PredictedWindow::Detected { within_closed_form, .. } => (within_closed_form, None),
            PredictedWindow::Undetected(why) => (None, Some(unseen_word(why))),
        };
        let closed_form = |DetectionBounds { best, worst }: DetectionBounds| json!({ "best_ms": to_ms(best), "worst_ms": to_ms(worst) });
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
            "quantiles_ms": spread.map(|spread| spread.quantiles.map(to_ms)),
            "closed_form": row.closed_form.map(closed_form),
            "within_closed_form": within,
            "unseen": unseen,
            "trials": spread.map_or(0, |spread| spread.trials),
            "unnoticed": spread.map(|spread| spread.undetected_trials),
        })
    };
    prediction.rows.iter().map(row).collect()
}

/// The word for the reason why there is no window.
pub(in crate::cli) fn unseen_word(why: UndetectedReason) -> &'static str {
    match why {
        UndetectedReason::ProbePasses => "probe_passes",
        UndetectedReason::NeedsTraffic => "needs_traffic",
        UndetectedReason::NoVerdict => "not_noticed",
        UndetectedReason::NeverUp => "never_up",
    }
}

fn seen_spread(row: &PredictionRow) -> Option<&WindowSpread> {
    match &row.window {
        PredictedWindow::Detected { spread, .. } => Some(spread),
        PredictedWindow::Undetected(_) => None,
    }
}

/// Converts to milliseconds, rounded to microseconds.
pub(in crate::cli) fn to_ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
