//! `gapless tune`: finds the detection window that meets a target with the fewest probes.

mod arguments;
mod json;
mod text;
mod toml;

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::config::model::Config;
use crate::logic::discovery::PLACEHOLDERS_PER_NAME;
use crate::logic::model::topology::PoolSpec;
use crate::sim::latency::LatencyModel;
use crate::sim::predict::{self, FaultKind};
use crate::sim::tune::{self, TuneGoals, TuneResult, TuneSubject};

use super::check::OutputFormat;
use super::predict::thread_count;
use super::{EXIT_FAILED, EXIT_OK, EXIT_USAGE};

pub use arguments::TuneArguments;

/// The assumed round trip where none was observed.
const DEFAULT_ROUND_TRIP: Duration = Duration::from_millis(1);

/// Hours of a year, on average.
const YEAR_HOURS: f64 = 24.0 * 365.25;

/// The question: goals, pools and assumptions.
struct TuningRequest<'a> {
    requirements: TuneGoals,
    subjects: Vec<TuneSubject<'a>>,
    /// Pools without observations, if other pools have some.
    unobserved_pools: Vec<&'a str>,
    /// Probes per second of the pools that are not tuned.
    other_probes_per_second: f64,
}

/// Tunes the pools, writes the result to `out`, and returns the exit code: [`EXIT_FAILED`] if the
/// target cannot be met.
///
/// # Errors
/// When `out` cannot be written to.
pub fn run(
    config: &Config,
    arguments: &TuneArguments,
    format: OutputFormat,
    out: &mut impl Write,
) -> io::Result<u8> {
    let request = match tuning_request(config, arguments) {
        Ok(request) => request,
        Err(error) => {
            eprintln!("gapless: {error}");
            return Ok(EXIT_USAGE);
        }
    };
    let here = config.topology.local.as_ref();
    let mut progress = ProgressLine { is_shown: io::stderr().is_terminal() };
    let mut show_progress = |what: &str| progress.show(what);
    let result = tune::tune(
        &request.subjects,
        here,
        &request.requirements,
        Instant::now(),
        &mut show_progress,
    );
    progress.clear();
    match format {
        OutputFormat::Text { .. } => {
            super::check::write_placeholder_note(config, out)?;
            text::write_text(&request, &result, out)?;
        }
        OutputFormat::Json => {
            let mut report = json::tuning_json(&request, &result);
            report["stand_ins"] = (config.dns.entries.len() * PLACEHOLDERS_PER_NAME).into();
            writeln!(out, "{report}")?;
        }
    }
    Ok(if result.is_met { EXIT_OK } else { EXIT_FAILED })
}

fn tuning_request<'a>(
    config: &'a Config,
    arguments: &TuneArguments,
) -> Result<TuningRequest<'a>, String> {
    let is_wanted =
        |pool: &PoolSpec| arguments.pool.as_deref().is_none_or(|name| *pool.name == *name);
    let mut subjects = Vec::new();
    let (mut unknown, mut others) = (Vec::new(), 0.0);
    let topology = &config.topology;
    for pool in &topology.pools {
        if is_wanted(pool) {
            let subject = subject(pool, arguments, config.workers);
            if arguments.observed.latency(&pool.name).is_none() {
                unknown.push(&*pool.name);
            }
            subjects.push(subject);
        } else {
            others += tune::probes_per_second(pool);
        }
    }
    if subjects.is_empty() {
        let names: Vec<&str> = topology.pools.iter().map(|pool| &*pool.name).collect();
        let pool_name = arguments.pool.as_deref().unwrap_or_default();
        return Err(format!("there is no pool `{pool_name}`; there is {}", names.join(", ")));
    }
    // The director never exceeds the configured rate: it would stretch the periods.
    let configured = f64::from(topology.probes_per_second);
    let budget = arguments.probe_budget.unwrap_or(configured).min(configured);
    let faults = match &*arguments.classes {
        [] => FaultKind::ALL.to_vec(),
        classes => classes.to_vec(),
    };
    let requirements = TuneGoals {
        target: arguments.target,
        faults,
        should_detect_all: !arguments.classes.is_empty(),
        false_verdicts_yearly: arguments.false_verdicts,
        probes_per_second: budget - others,
    };
    Ok(TuningRequest {
        requirements,
        subjects,
        unobserved_pools: unknown,
        other_probes_per_second: others,
    })
}

fn subject<'a>(pool: &'a PoolSpec, arguments: &TuneArguments, workers: usize) -> TuneSubject<'a> {
    let measured = arguments.observed.measured(&pool.name);
    let round_trip = arguments.round_trip.or_else(|| measured.map(|measured| measured.round_trip));
    let latency = arguments.observed.latency(&pool.name).cloned();
    let observed_loss = measured.and_then(|measured| measured.probe_loss(pool.detect.timeout));
    TuneSubject {
        pool,
        input: predict::PredictionInput {
            trials: arguments.trials,
            seed: arguments.seed,
            round_trip: round_trip.unwrap_or(DEFAULT_ROUND_TRIP),
            rate_rps: arguments.rate.filter(|rate| *rate > 0.0),
            warm_up: None,
            latency: latency.unwrap_or(LatencyModel::Fixed(predict::DEFAULT_SERVICE_TIME)),
            workers,
            threads: thread_count(),
        },
        // An observed loss only increases the assumed one: an hour without losses proves nothing.
        probe_loss: observed_loss.unwrap_or(0.0).max(arguments.loss),
    }
}

/// The pool with the tuned window.
fn with_tuned_window(subject: &TuneSubject<'_>, state: &tune::WindowEvaluation) -> PoolSpec {
    PoolSpec { detect: state.detect, ..subject.pool.clone() }
}

/// Each pool with its result.
fn subjects_with_results<'a>(
    request: &'a TuningRequest<'_>,
    result: &'a TuneResult,
) -> impl Iterator<Item = (&'a TuneSubject<'a>, &'a tune::TunedPool)> {
    request.subjects.iter().zip(&result.pools)
}

/// A progress line on the terminal.
struct ProgressLine {
    is_shown: bool,
}

impl ProgressLine {
    fn show(&mut self, what: &str) {
        if self.is_shown {
            eprint!("\r\x1b[K{what}");
        }
    }

    fn clear(&mut self) {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
    }
}
