//! The effect of failures on clients: gapless with its defaults beside tuned haproxy, nginx and
//! Envoy (`peers/`), each in front of the same two zones of three endpoint processes. The failures
//! are real, the load is an open loop. The exit code is 1 if gapless exceeds a bound of the table
//! in `scenario.rs`.
//!
//! `cargo bench --bench failover` measures every failure of a zone and of an endpoint (20 minutes).
//! `cargo bench --bench failover -- --smoke` tests the bench itself (20 seconds).
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
mod evaluation;
#[path = "../support/executed_posts.rs"]
#[allow(dead_code, reason = "counts of single POSTs are not needed here")]
mod executed_posts;
mod measurement;
mod peer;
mod report;
mod scenario;

#[path = "../support/bench_main.rs"]
mod bench_main;
#[path = "../support/cell_outcome.rs"]
mod cell_outcome;
#[path = "../support/certificates.rs"]
#[allow(dead_code, reason = "no probe here speaks TLS")]
mod certificates;
#[path = "../support/cpu.rs"]
#[allow(dead_code, reason = "only the parents of processes matter here")]
mod cpu;
#[path = "../support/endpoint.rs"]
mod endpoint;
#[path = "../support/endpoint_tls.rs"]
#[allow(dead_code, reason = "no probe here speaks TLS")]
mod endpoint_tls;
#[path = "../support/fault_class.rs"]
#[allow(dead_code, reason = "not every class of the detection bench is one here")]
mod fault_class;
#[path = "../support/fleet.rs"]
#[allow(dead_code, reason = "a zone's injections are timed as one")]
mod fleet;
#[path = "../support/gapless_process.rs"]
#[allow(dead_code, reason = "of incidents only the verdict matters here")]
mod gapless_process;
#[path = "../support/http1_message.rs"]
mod http1_message;
#[path = "../support/http_check.rs"]
#[allow(dead_code, reason = "what a proxy adds to a request does not matter here")]
mod http_check;
#[path = "../support/keep_alive_connections.rs"]
mod keep_alive_connections;
#[path = "../support/layout.rs"]
#[allow(dead_code, reason = "one pool is enough here")]
mod layout;
#[path = "../support/machine.rs"]
mod machine;
#[path = "../support/namespace.rs"]
mod namespace;
#[path = "../support/open_loop_load.rs"]
#[allow(dead_code, reason = "an uneven pace is for predictions")]
mod open_loop_load;
#[path = "../support/packet_drops.rs"]
mod packet_drops;
#[path = "../support/parse.rs"]
#[allow(dead_code, reason = "of what it reads, only cores and parents matter here")]
mod parse;
#[path = "../support/peer_program.rs"]
mod peer_program;
#[path = "../../tests/support/pki.rs"]
#[allow(dead_code, reason = "no probe here speaks TLS")]
mod pki;
#[path = "../support/process.rs"]
#[allow(dead_code, reason = "the process itself is not measured here")]
mod process;
#[path = "../support/run_deadline.rs"]
mod run_deadline;
#[path = "../support/sample.rs"]
mod sample;
#[path = "../support/table.rs"]
mod table;
#[path = "../support/template.rs"]
mod template;

use args::{FailoverArgs, FailoverReportFormat};
use cell_outcome::{CellOutcome, measure_with_repeats};
use measurement::{FailoverMeasurement, FailoverPlan};
use packet_drops::BenchNamespace;
use peer::InstalledPeer;
use peer_program::Peer;
use report::{FailoverCell, FailoverReport};
use run_deadline::RunDeadline;
use scenario::{FailoverScenario, FailoverScope, SCENARIOS, SMOKE_SCENARIO};

/// Traffic before, during and after a failure in `--smoke`.
const SMOKE_SECONDS: [u64; 3] = [3, 3, 3];

fn main() -> ExitCode {
    bench_main::main("failover", || run(&FailoverArgs::parse()))
}

/// Runs the bench; returns whether gapless met all bounds.
fn run(args: &FailoverArgs) -> io::Result<bool> {
    let run_deadline = RunDeadline::start(Duration::from_secs(args.minutes * 60))?;
    let dir = tempfile::tempdir()?;
    make_world_accessible(dir.path())?;
    let (installed, missing) = find_peers(args)?;
    let namespace = BenchNamespace::new()?;
    let network = namespace.as_ref().map(|namespace| &namespace.network);
    let bench = FailoverBench {
        args,
        installed: &installed,
        dir: dir.path(),
        can_drop_packets: namespace.as_ref().is_some_and(|namespace| namespace.can_drop_packets),
        run_deadline: &run_deadline,
    };
    let cells = namespace::run_inside(network, || Ok(bench.run()))?;
    let rate = args.rate;
    let report = FailoverReport { rate, installed, missing, cells };
    match args.format {
        FailoverReportFormat::Text => print!("{}", report.as_text()),
        FailoverReportFormat::Json => println!("{:#}", report.as_json()),
    }
    Ok(report.is_good() && !run_deadline.is_over())
}

/// Servers that root starts read and write there as other users.
fn make_world_accessible(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o755))
}

/// The selected systems that are installed, and the names of the others.
fn find_peers(args: &FailoverArgs) -> io::Result<(Vec<InstalledPeer>, Vec<&'static str>)> {
    let requested_peers: &[Peer] = match &*args.peers {
        // `--smoke` needs only one other system, whichever is installed.
        [] if args.smoke => &[Peer::Gapless, Peer::Haproxy],
        [] => Peer::value_variants(),
        named => named,
    };
    let (mut installed, mut missing) = (Vec::new(), Vec::new());
    for &peer in requested_peers {
        match InstalledPeer::find(peer, &args.gapless, args.envoy.as_deref()) {
            Some(found) => installed.push(found),
            None if peer == Peer::Gapless => {
                return Err(io::Error::other(format!("{} does not run", args.gapless.display())));
            }
            None => missing.push(peer.name()),
        }
    }
    Ok((installed, missing))
}

/// The parameters of all cells.
struct FailoverBench<'a> {
    args: &'a FailoverArgs,
    installed: &'a [InstalledPeer],
    dir: &'a Path,
    /// Whether packets can be dropped.
    can_drop_packets: bool,
    run_deadline: &'a RunDeadline,
}

impl FailoverBench<'_> {
    fn run(&self) -> Vec<FailoverCell> {
        let args = self.args;
        let scopes: &[FailoverScope] = match &*args.scopes {
            [] if args.smoke => &[FailoverScope::Zone],
            [] => &FailoverScope::ALL,
            named => named,
        };
        let is_wanted = |scenario: &&FailoverScenario| match &*args.classes {
            [] => !args.smoke || scenario.name == SMOKE_SCENARIO,
            named => named.iter().any(|name| name == scenario.name),
        };
        let mut cells = Vec::new();
        for &scope in scopes {
            let in_scope = SCENARIOS.iter().filter(is_wanted).filter(|one| one.is_run_in(scope));
            for scenario in in_scope {
                for installed in self.installed {
                    for _ in 0..args.runs {
                        if self.run_deadline.is_over() {
                            return cells;
                        }
                        cells.push(self.run_cell(scope, scenario, installed));
                    }
                }
            }
        }
        cells
    }

    fn run_cell(
        &self,
        scope: FailoverScope,
        scenario: &'static FailoverScenario,
        installed: &InstalledPeer,
    ) -> FailoverCell {
        eprintln!("{scope:?} {}: {}", scenario.name, installed.peer.name());
        let outcome = match scenario.class() {
            None => CellOutcome::Broken("no such class".to_owned()),
            Some(class) if class.mechanism.drops_packets() && !self.can_drop_packets => {
                CellOutcome::Skipped("packets cannot be dropped here")
            }
            Some(class) => {
                let args = self.args;
                let seconds = [args.warm_up_seconds, args.fault_seconds, args.heal_seconds];
                let seconds = if args.smoke { SMOKE_SECONDS } else { seconds };
                let times = seconds.map(Duration::from_secs);
                let (rate, dir) = (args.rate, self.dir);
                let plan = FailoverPlan {
                    installed,
                    scenario,
                    class,
                    scope,
                    rate,
                    phase_durations: times,
                    dir,
                };
                self.measure(&plan).into()
            }
        };
        FailoverCell { scope, scenario, peer: installed.peer, outcome }
    }

    fn measure(&self, plan: &FailoverPlan<'_>) -> io::Result<FailoverMeasurement> {
        let measure = || measurement::measure_failover(plan, self.run_deadline);
        let (measured, repeats) =
            measure_with_repeats(self.args.pause_ms, self.args.repeats, measure)?;
        Ok(FailoverMeasurement { repeats, ..measured })
    }
}
