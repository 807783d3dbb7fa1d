//! What clients see of a failure: gapless with its defaults beside haproxy, nginx and Envoy as their
//! experts tune them (`peers/`), each in front of the same two zones of three endpoint processes.
//! Real failures under an open loop: exit code 1 if gapless lets more of one through than the table
//! in `scenario.rs` says.
//!
//! `cargo bench --bench failover` measures every failure of a zone and of an endpoint (20 minutes).
//! `cargo bench --bench failover -- --smoke` sees that all of this works (20 seconds).
//! `cargo bench --bench failover -- --class hang --scope zone --peer gapless --rate 240`
//! `cargo bench --bench failover -- --format json > failover.json`
//!
//! Run it as root (the black hole needs a namespace, and is skipped without) on an idle machine.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

mod args;
mod cell;
mod judge;
mod peer;
#[allow(dead_code, reason = "whether is enough here, but for twice")]
mod posts;
mod report;
mod scenario;

#[path = "../detection/certificates.rs"]
#[allow(dead_code, reason = "no probe here speaks TLS")]
mod certificates;
#[path = "../dataplane/check.rs"]
#[allow(dead_code, reason = "what a proxy adds to a request does not matter here")]
mod check;
#[path = "../detection/class.rs"]
#[allow(dead_code, reason = "not every class of the detection bench is one here")]
mod class;
#[path = "../dataplane/cpu.rs"]
#[allow(dead_code, reason = "only whose child a process is matters here")]
mod cpu;
#[path = "../detection/endpoint.rs"]
mod endpoint;
#[path = "../dataplane/find.rs"]
mod find;
#[path = "../detection/fleet.rs"]
#[allow(dead_code, reason = "a zone's injections are timed as one")]
mod fleet;
#[path = "../detection/instance.rs"]
#[allow(dead_code, reason = "of incidents only the verdict matters here")]
mod instance;
#[path = "../detection/kept.rs"]
mod kept;
#[path = "../detection/layout.rs"]
#[allow(dead_code, reason = "one pool is enough here")]
mod layout;
#[path = "../detection/load.rs"]
#[allow(dead_code, reason = "an uneven pace is for predictions")]
mod load;
#[path = "../detection/machine.rs"]
mod machine;
#[path = "../detection/namespace.rs"]
mod namespace;
#[path = "../detection/outcome.rs"]
mod outcome;
#[path = "../dataplane/parse.rs"]
#[allow(dead_code, reason = "of what it reads, only cores and parents matter here")]
mod parse;
#[path = "../../tests/support/pki.rs"]
#[allow(dead_code, reason = "no probe here speaks TLS")]
mod pki;
#[path = "../dataplane/process.rs"]
#[allow(dead_code, reason = "the process itself is not measured here")]
mod process;
#[path = "../detection/program.rs"]
mod program;
#[path = "../detection/sample.rs"]
mod sample;
#[path = "../dataplane/table.rs"]
mod table;
#[path = "../dataplane/template.rs"]
mod template;
#[path = "../detection/watch.rs"]
mod watch;
#[path = "../detection/wire.rs"]
mod wire;

use args::{Args, Format};
use cell::{Measured, Plan};
use class::Means;
use find::Peer;
use namespace::Namespace;
use outcome::{Outcome, repeated};
use peer::Installed;
use report::{Cell, Report};
use scenario::{SCENARIOS, SMOKE, Scenario, Scope};
use watch::Watch;

/// Traffic before, during and after a failure in `--smoke`.
const SMOKE_SECONDS: [u64; 3] = [3, 3, 3];

fn main() -> ExitCode {
    program::main("failover", || run(&Args::parse()))
}

/// Whether gapless let no more through than it may.
fn run(args: &Args) -> io::Result<bool> {
    let watch = Watch::start(Duration::from_secs(args.minutes * 60))?;
    let dir = tempfile::tempdir()?;
    open_to_all(dir.path())?;
    let (installed, missing) = find(args)?;
    let namespace = Namespace::new()?;
    let bench = Bench {
        args,
        installed: &installed,
        dir: dir.path(),
        drops: namespace.as_ref().is_some_and(|namespace| namespace.drops),
        watch: &watch,
    };
    let cells = namespace::inside(namespace.as_ref(), || Ok(bench.run()))?;
    let rate = args.rate;
    let report = Report { rate, installed, missing, cells };
    match args.format {
        Format::Text => print!("{}", report.as_text()),
        Format::Json => println!("{:#}", report.as_json()),
    }
    Ok(report.is_good() && !watch.is_over())
}

/// Servers that are started by root read and write there as other users.
fn open_to_all(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o755))
}

/// The systems that were asked for and are there, and the names of those that are not.
fn find(args: &Args) -> io::Result<(Vec<Installed>, Vec<&'static str>)> {
    let named: &[Peer] = match &*args.peers {
        // Which of the others stands beside it does not matter there.
        [] if args.smoke => &[Peer::Gapless, Peer::Haproxy],
        [] => Peer::value_variants(),
        named => named,
    };
    let (mut installed, mut missing) = (Vec::new(), Vec::new());
    for &peer in named {
        match Installed::find(peer, &args.gapless, args.envoy.as_deref()) {
            Some(found) => installed.push(found),
            None if peer == Peer::Gapless => {
                return Err(io::Error::other(format!("{} does not run", args.gapless.display())));
            }
            None => missing.push(peer.name()),
        }
    }
    Ok((installed, missing))
}

/// What all cells share.
struct Bench<'a> {
    args: &'a Args,
    installed: &'a [Installed],
    dir: &'a Path,
    /// Whether packets can be dropped.
    drops: bool,
    watch: &'a Watch,
}

impl Bench<'_> {
    fn run(&self) -> Vec<Cell> {
        let args = self.args;
        let scopes: &[Scope] = match &*args.scopes {
            [] if args.smoke => &[Scope::Zone],
            [] => &Scope::ALL,
            named => named,
        };
        let is_wanted = |scenario: &&Scenario| match &*args.classes {
            [] => !args.smoke || scenario.name == SMOKE,
            named => named.iter().any(|name| name == scenario.name),
        };
        let mut cells = Vec::new();
        for &scope in scopes {
            let in_scope = SCENARIOS.iter().filter(is_wanted).filter(|one| one.is_in(scope));
            for scenario in in_scope {
                for installed in self.installed {
                    for _ in 0..args.runs {
                        if self.watch.is_over() {
                            return cells;
                        }
                        cells.push(self.cell(scope, scenario, installed));
                    }
                }
            }
        }
        cells
    }

    fn cell(&self, scope: Scope, scenario: &'static Scenario, installed: &Installed) -> Cell {
        eprintln!("{scope:?} {}: {}", scenario.name, installed.peer.name());
        let outcome = match scenario.class() {
            None => Outcome::Broken("no such class".to_owned()),
            Some(class) if class.means == Means::Drop && !self.drops => {
                Outcome::Skipped("packets cannot be dropped here")
            }
            Some(class) => {
                let args = self.args;
                let seconds = [args.warm_up_seconds, args.fault_seconds, args.heal_seconds];
                let seconds = if args.smoke { SMOKE_SECONDS } else { seconds };
                let times = seconds.map(Duration::from_secs);
                let (rate, dir) = (args.rate, self.dir);
                let plan = Plan { installed, scenario, class, scope, rate, times, dir };
                self.measure(&plan).into()
            }
        };
        Cell { scope, scenario, peer: installed.peer, outcome }
    }

    fn measure(&self, plan: &Plan<'_>) -> io::Result<Measured> {
        let measure = || cell::measure(plan, self.watch);
        let (measured, repeats) = repeated(self.args.pause_ms, self.args.repeats, measure)?;
        Ok(Measured { repeats, ..measured })
    }
}
