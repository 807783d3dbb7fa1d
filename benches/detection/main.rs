//! Is a failure detected as `gapless predict` says? Real failures of real processes (and packets
//! dropped in a network namespace) against the prediction for the same configuration: of 100, at
//! least 95 verdicts must come within the predicted 99th percentile. Exit code 1 if they do not.
//!
//! `cargo bench --bench detection` measures every class, with and without traffic (half an hour).
//! `cargo bench --bench detection -- --smoke` sees that all of this works (20 seconds).
//! `cargo bench --bench detection -- --class hang --class refused --traffic with --scope zone`
//! `cargo bench --bench detection -- --runs 300 --format json > detection.json`
//! `cargo bench --bench detection -- --tuned` sees that what `gapless tune` finds meets its targets.
//! `cargo bench --bench detection -- --random 200` does without the defaults: every failure has a
//! configuration of its own.
//!
//! Run it as root (the black hole needs a namespace, and is skipped without) on an idle machine;
//! the second table says how idle it was.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde_json::Value;

mod args;
mod calibration;
mod cell;
mod certificates;
mod class;
mod endpoint;
mod fleet;
mod instance;
mod judge;
mod kept;
mod layout;
#[allow(dead_code, reason = "an even pace is for comparisons")]
mod load;
mod machine;
mod namespace;
mod outcome;
mod predicted;
mod program;
mod random;
mod report;
#[allow(dead_code, reason = "only their number matters here")]
mod sample;
mod watch;
mod wire;

#[path = "../dataplane/parse.rs"]
#[allow(dead_code, reason = "of what it reads, only cores matter here")]
mod parse;
#[path = "../../tests/support/pki.rs"]
#[allow(dead_code, reason = "the tests need more kinds of certificates")]
mod pki;
#[path = "../dataplane/table.rs"]
mod table;
mod tuned;

use args::{Args, Format};
use cell::{Aim, Measured, Plan};
use class::{CLASSES, Class, Means, SMOKE};
use layout::Shape;
use namespace::Namespace;
use outcome::{Outcome, repeated};
use predicted::Predicted;
use report::Cell;
use watch::Watch;

/// The default period of probes.
const INTERVAL: Duration = Duration::from_secs(1);

/// Failures of each class in `--smoke`.
const SMOKE_RUNS: usize = 5;

fn main() -> ExitCode {
    program::main("detection", || run(&Args::parse()))
}

/// Whether every prediction held.
fn run(args: &Args) -> io::Result<bool> {
    let watch = Watch::start(Duration::from_secs(args.minutes * 60))?;
    let dir = tempfile::tempdir()?;
    certificates::write(dir.path())?;
    let namespace = Namespace::new()?;
    let bench = Bench {
        args,
        dir: dir.path(),
        drops: namespace.as_ref().is_some_and(|namespace| namespace.drops),
        watch: &watch,
    };
    if args.tuned {
        let is_good = namespace::inside(namespace.as_ref(), || tuned::run(&bench))?;
        return Ok(is_good && !watch.is_over());
    }
    if let Some(trials) = args.random {
        let is_good = namespace::inside(namespace.as_ref(), || random::run(&bench, trials))?;
        return Ok(is_good && !watch.is_over());
    }
    let cells = namespace::inside(namespace.as_ref(), || bench.run())?;
    match args.format {
        Format::Text => print!("{}", report::as_text(&cells)),
        Format::Json => println!("{:#}", report::as_json(&cells)),
    }
    Ok(report::is_good(&cells, args.allow_missing) && !watch.is_over())
}

/// What all cells share.
struct Bench<'a> {
    args: &'a Args,
    dir: &'a Path,
    /// Whether packets can be dropped.
    drops: bool,
    watch: &'a Watch,
}

impl Bench<'_> {
    fn run(&self) -> io::Result<Vec<Cell>> {
        let args = self.args;
        let is_wanted = |class: &&Class| {
            let is_named = |names: &[&str]| names.contains(&class.name);
            let named: Vec<&str> = args.classes.iter().map(String::as_str).collect();
            if args.smoke { is_named(&SMOKE) } else { named.is_empty() || is_named(&named) }
        };
        let rtt_ms = self.rtt_ms()?;
        let mut predictions: HashMap<&str, Vec<Value>> = HashMap::new();
        let mut cells = Vec::new();
        for class in CLASSES.iter().filter(is_wanted) {
            let rows = match predictions.entry(class.probe) {
                std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::hash_map::Entry::Vacant(unknown) => {
                    let question = (args.rate, rtt_ms);
                    let program = &args.gapless;
                    let shape = Shape::plain(class.probe);
                    unknown.insert(predicted::predict(program, &shape, question, self.dir)?)
                }
            };
            for &scope in args.scope.scopes() {
                for &with_traffic in args.traffic.modes() {
                    if self.watch.is_over() {
                        return Ok(cells);
                    }
                    let predicted = predicted::row_of(rows, class, scope, with_traffic);
                    cells.push(self.cell(class, scope, with_traffic, predicted));
                }
            }
        }
        Ok(cells)
    }

    fn cell(
        &self,
        class: &'static Class,
        scope: &'static str,
        with_traffic: bool,
        predicted: Predicted,
    ) -> Cell {
        let args = self.args;
        let runs = if args.smoke { SMOKE_RUNS } else { args.runs as usize };
        let traffic_rps = with_traffic.then_some(args.rate);
        let shapes = vec![Shape::plain(class.probe); (args.pools as usize).min(runs)];
        let plan = Plan {
            shapes: &shapes,
            rounds: rounds(shapes.len(), runs, |pool| {
                Aim::new(pool, (class, scope), INTERVAL, &predicted)
            }),
            is_over_tls: class.is_over_tls(),
            rate_rps: traffic_rps,
            // What is learnt from traffic tells of silence, which is none of the smoke's classes.
            warm_up: if args.smoke { Duration::ZERO } else { cell::WARM_UP },
            program: &args.gapless,
            dir: self.dir,
        };
        let with = if with_traffic { "with" } else { "without" };
        eprintln!("{} ({scope}), {with} traffic", class.name);
        let outcome = match class.means {
            Means::Drop if !self.drops => Outcome::Skipped("packets cannot be dropped here"),
            Means::Kill | Means::Stop | Means::Drop | Means::Order(_) => self.measure(&plan).into(),
        };
        Cell { class: class.name, scope, traffic_rps, predicted, outcome }
    }

    /// What a probe takes here.
    fn rtt_ms(&self) -> io::Result<f64> {
        let rtt_ms = match self.args.rtt_ms {
            Some(rtt_ms) => rtt_ms,
            None => cell::round_trip_ms(&self.args.gapless, self.dir, self.watch)?,
        };
        eprintln!("a probe takes {rtt_ms:.2} ms");
        Ok(rtt_ms)
    }

    fn measure(&self, plan: &Plan<'_>) -> io::Result<Measured> {
        let at_most = if self.args.smoke { 0 } else { self.args.repeats };
        let measure = || cell::measure(plan, self.watch);
        let (measured, repeats) = repeated(self.args.pause_ms, at_most, measure)?;
        Ok(Measured { repeats, ..measured })
    }
}

/// Failures in all, one in each pool at a time.
fn rounds(pools: usize, runs: usize, aim: impl Fn(usize) -> Aim) -> Vec<Vec<Aim>> {
    let mut left = runs;
    let mut rounds = Vec::new();
    while left > 0 {
        let now = left.min(pools);
        rounds.push((0..now).map(&aim).collect());
        left -= now;
    }
    rounds
}
