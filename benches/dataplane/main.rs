//! What a request costs: gapless beside the system's haproxy and nginx, interleaved in one run.
//!
//! The figure that matters is CPU time per request: user and system time of the proxy's whole
//! process tree over the requests it served. It does not depend on how fast the load is. The proxy
//! has one core to itself; wrk and the endpoint share the other.
//!
//! Run it on an idle machine: `cargo bench --bench dataplane -- --help`.

use std::env;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

use clap::Parser;

mod args;
mod case;
mod check;
mod cpu;
mod environment;
mod measure;
mod namespace;
mod parse;
mod peer;
mod process;
mod report;
mod stats;
mod table;
mod template;

use args::Args;
use case::{CASES, CONNECTIONS, Case};
use environment::Environment;
use measure::Bench;
use namespace::Namespace;
use peer::{Installed, Peer, find_program};
use report::{CaseReport, Report};

/// The core of a pinned proxy.
pub(crate) const PROXY_CORE: u32 = 0;
/// The core of wrk and the endpoint.
pub(crate) const LOAD_CORE: u32 = 1;

fn main() -> ExitCode {
    // `cargo bench` says so; `cargo test --benches` only wants to see that the bench builds.
    if !env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match run(&Args::parse()) {
        Ok(report) if report.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("dataplane: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<Report> {
    let missing = |what: &str| io::Error::other(format!("{what} is not installed"));
    let (_, wrk_version) = find_program("wrk", "-v").ok_or_else(|| missing("wrk (the load)"))?;
    let (nginx, nginx_version) =
        find_program("nginx", "-v").ok_or_else(|| missing("nginx (the endpoint)"))?;
    let installed = find_peers(args)?;

    let dir = tempfile::tempdir()?;
    // Servers that are started by root read and write here as other users.
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
    let script = dir.path().join("wrk.lua");
    fs::write(&script, include_str!("wrk.lua"))?;

    let is_wanted = |case: &&Case| is_wanted(case, args, &installed);
    let cases: Vec<&Case> = CASES.iter().filter(is_wanted).collect();
    if cases.is_empty() {
        return Err(io::Error::other("none of the proxies asked for is in the cases asked for"));
    }
    let (rounds, seconds) = if args.smoke { (1, 1) } else { (args.rounds, args.seconds) };
    let congestion_control = namespace::congestion_control()?;
    let cubic = if cases.iter().any(|case| case.is_bulk()) {
        Namespace::for_bodies(&congestion_control)?
    } else {
        None
    };
    let others = [&*wrk_version, &*format!("endpoint: {nginx_version}")];
    let environment = Environment::read(&installed, &others, congestion_control, cubic.is_some())?;

    let bench = Bench {
        rounds,
        seconds,
        installed: &installed,
        nginx: &nginx,
        script: &script,
        dir: dir.path(),
    };
    let mut reports = Vec::new();
    for case in cases {
        let namespace = cubic.as_ref().filter(|_| case.is_bulk());
        reports.push(CaseReport::new(case, namespace::inside(namespace, || bench.run(case))?));
    }
    let report = Report {
        environment,
        rounds,
        window_seconds: seconds,
        connections: CONNECTIONS,
        cases: reports,
    };
    report.print();
    report.write(&args.json)?;
    println!("\nEvery round: {}", args.json.display());
    Ok(report)
}

fn find_peers(args: &Args) -> io::Result<Vec<Installed>> {
    let mut installed = Vec::new();
    for &peer in &args.peers {
        match Installed::find(peer, &args.gapless) {
            Some(found) => installed.push(found),
            None if peer == Peer::Gapless => {
                let path = args.gapless.display();
                return Err(io::Error::other(format!("{path} does not run")));
            }
            None => println!("{} is not installed: skipped", peer.name()),
        }
    }
    Ok(installed)
}

fn is_wanted(case: &Case, args: &Args, installed: &[Installed]) -> bool {
    let is_named = if args.smoke {
        case.name == CASES[0].name
    } else {
        args.cases.is_empty() || args.cases.iter().any(|name| name == case.name)
    };
    is_named && case.arms.iter().any(|arm| installed.iter().any(|found| found.peer == arm.peer))
}
