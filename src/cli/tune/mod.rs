//! `gapless tune`: the detection window that meets a target at the least probing.

mod arguments;
mod json;
mod text;
mod toml;

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::config::model::Config;
use crate::logic::discovery::STAND_INS;
use crate::logic::topology::{PoolSpec, Topology};
use crate::sim::latency::Latency;
use crate::sim::predict::{self, Fault};
use crate::sim::tune::{self, Answer, Subject, Wishes};

use super::check::Format;
use super::predict::threads;
use super::{FAILED, OK, USAGE};

pub use arguments::Arguments;

/// A round trip where nothing is known of it.
const ROUND_TRIP: Duration = Duration::from_millis(1);

/// A year, in hours.
const YEAR_HOURS: f64 = 24.0 * 365.25;

/// What is written beside the answer itself.
struct Asked<'a> {
    wishes: Wishes,
    subjects: Vec<Subject<'a>>,
    /// Pools of which nothing was observed, though something was of others.
    unknown: Vec<&'a str>,
    /// Probes a second of the pools that are not tuned.
    others: f64,
}

/// Answers what the command line asks, writes it to `out`, and gives the exit code: [`FAILED`] if
/// the target cannot be met.
///
/// # Errors
/// When `out` cannot be written to.
pub fn run(
    config: &Config,
    arguments: &Arguments,
    format: Format,
    out: &mut impl Write,
) -> io::Result<u8> {
    let asked = match asked(&config.topology, arguments) {
        Ok(asked) => asked,
        Err(why) => {
            eprintln!("gapless: {why}");
            return Ok(USAGE);
        }
    };
    let here = config.topology.here.as_ref();
    let mut progress = Progress { is_shown: io::stderr().is_terminal() };
    let mut tell = |what: &str| progress.tell(what);
    let answer = tune::tune(&asked.subjects, here, &asked.wishes, Instant::now(), &mut tell);
    progress.end();
    match format {
        Format::Text { .. } => {
            super::check::stand_ins(config, out)?;
            text::write(&asked, &answer, out)?;
        }
        Format::Json => {
            let mut told = json::object(&asked, &answer);
            told["stand_ins"] = (config.dns.entries.len() * STAND_INS).into();
            writeln!(out, "{told}")?;
        }
    }
    Ok(if answer.is_met { OK } else { FAILED })
}

fn asked<'a>(topology: &'a Topology, arguments: &Arguments) -> Result<Asked<'a>, String> {
    let is_wanted =
        |pool: &PoolSpec| arguments.pool.as_deref().is_none_or(|name| *pool.name == *name);
    let mut subjects = Vec::new();
    let (mut unknown, mut others) = (Vec::new(), 0.0);
    for pool in &topology.pools {
        if is_wanted(pool) {
            let subject = subject(pool, arguments);
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
        let asked = arguments.pool.as_deref().unwrap_or_default();
        return Err(format!("there is no pool `{asked}`; there is {}", names.join(", ")));
    }
    // The director spends no more than this in any case: it would stretch the periods.
    let configured = f64::from(topology.probes_per_second);
    let budget = arguments.probe_budget.unwrap_or(configured).min(configured);
    let faults = match &*arguments.classes {
        [] => Fault::ALL.to_vec(),
        some => some.to_vec(),
    };
    let wishes = Wishes {
        target: arguments.target,
        faults,
        must_see_all: !arguments.classes.is_empty(),
        false_yearly: arguments.false_verdicts,
        probes_per_second: budget - others,
    };
    Ok(Asked { wishes, subjects, unknown, others })
}

fn subject<'a>(pool: &'a PoolSpec, arguments: &Arguments) -> Subject<'a> {
    let measured = arguments.observed.measured(&pool.name);
    let round_trip = arguments.round_trip.or_else(|| measured.map(|measured| measured.round_trip));
    let latency = arguments.observed.latency(&pool.name).cloned();
    let seen = measured.and_then(|measured| measured.loss(pool.detect.timeout));
    Subject {
        pool,
        question: predict::Question {
            trials: arguments.trials,
            seed: arguments.seed,
            round_trip: round_trip.unwrap_or(ROUND_TRIP),
            rate_rps: arguments.rate.filter(|rate| *rate > 0.0),
            latency: latency.unwrap_or(Latency::Fixed(predict::SERVICE)),
            threads: threads(),
        },
        // What was seen makes it worse, never better: an hour without a loss promises nothing.
        probe_loss: seen.unwrap_or(0.0).max(arguments.loss),
    }
}

/// The pool as it would be.
fn tuned_pool(subject: &Subject<'_>, state: &tune::State) -> PoolSpec {
    PoolSpec { detect: state.detect, ..subject.pool.clone() }
}

/// All that was found, pool by pool.
fn pairs<'a>(
    asked: &'a Asked<'_>,
    answer: &'a Answer,
) -> impl Iterator<Item = (&'a Subject<'a>, &'a tune::Tuned)> {
    asked.subjects.iter().zip(&answer.pools)
}

/// One line on a terminal that says what takes so long.
struct Progress {
    is_shown: bool,
}

impl Progress {
    fn tell(&mut self, what: &str) {
        if self.is_shown {
            eprint!("\r\x1b[K{what}");
        }
    }

    fn end(&mut self) {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
    }
}
