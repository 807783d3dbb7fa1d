//! The cost of a request: gapless beside the system's haproxy and nginx and PyPI's Envoy,
//! interleaved in one run.
//!
//! The main figure is CPU time per request: user and system time of the proxy's process tree,
//! divided by the number of requests. It does not depend on the speed of the load. The proxy has
//! one core; the load and the endpoint share the other.
//!
//! Run it on an idle machine: `cargo bench --bench dataplane -- --help`.

use std::env;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

mod args;
mod case;
#[path = "../support/certificates.rs"]
mod certificates;
mod client;
mod client_tls;
#[path = "../support/cpu.rs"]
mod cpu;
mod cubic_namespace;
mod environment;
mod fixed_rate;
mod h2c;
#[path = "../support/http_check.rs"]
mod http_check;
mod load_core;
mod load_tools;
mod measure;
mod memory;
#[path = "../support/namespace.rs"]
mod namespace;
#[path = "../support/parse.rs"]
mod parse;
mod peer;
#[path = "../support/peer_program.rs"]
mod peer_program;
#[path = "../support/process.rs"]
mod process;
mod report;
mod stats;
#[path = "../support/table.rs"]
mod table;
#[path = "../support/template.rs"]
mod template;

#[path = "../../tests/support/pki.rs"]
#[allow(dead_code, reason = "the tests need more kinds of certificates")]
mod pki;

use args::DataplaneArgs;
use case::{BenchCase, CASES, CONNECTIONS, EndpointProtocol, LoadProfile};
use environment::BenchEnvironment;
use measure::DataplaneBench;
use peer::InstalledProxy;
use peer_program::Peer;
use report::{CaseReport, DataplaneReport};

/// The core of a pinned proxy.
pub(crate) const PROXY_CORE: u32 = 0;
/// The core of the load and the endpoint.
pub(crate) const LOAD_CORE: u32 = 1;

/// Approximate HTTP/2 requests per second of warm-up.
const INITIAL_H2_RATE: f64 = 20_000.0;
/// The same in `--smoke`.
const SMOKE_H2_RATE: f64 = 2_000.0;

/// Connections whose memory is measured: many, so that page granularity averages out.
const IDLE_CONNECTIONS: u32 = 2000;
/// Connections whose memory is measured in `--smoke`.
const SMOKE_IDLE_CONNECTIONS: u32 = 200;

fn main() -> ExitCode {
    // `cargo bench` passes `--bench`; `cargo test --benches` only checks that the bench builds.
    if !env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match run(&DataplaneArgs::parse()) {
        Ok(report) if report.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("dataplane: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &DataplaneArgs) -> io::Result<DataplaneReport> {
    let not_installed = |what: &str| io::Error::other(format!("{what} is not installed"));
    let find = |name: &str, flag: &str| peer_program::find_program(Path::new(name), flag);
    let (_, wrk_version) = find("wrk", "-v").ok_or_else(|| not_installed("wrk (the load)"))?;
    let (nginx, nginx_version) =
        find("nginx", "-v").ok_or_else(|| not_installed("nginx (the endpoint)"))?;
    let h2load = find("h2load", "--version");
    let (installed, mut missing) = find_peers(args)?;
    raise_file_limit()?;

    let dir = tempfile::tempdir()?;
    // Servers that root starts read and write here as other users.
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
    let script = dir.path().join("wrk.lua");
    fs::write(&script, include_str!("wrk.lua"))?;
    let tls = client_tls::write_files(dir.path())?;

    let selected = select_cases(args, &installed, h2load.is_some(), &mut missing)?;
    let congestion_control = cubic_namespace::congestion_control()?;
    let bulk_namespace = if selected.iter().any(|case| case.is_bulk()) {
        cubic_namespace::for_bulk_cases(&congestion_control)?
    } else {
        None
    };
    let mut other_versions = vec![wrk_version, format!("endpoint: {nginx_version}")];
    other_versions.extend(h2load.map(|(_, version)| version));
    let environment = BenchEnvironment::collect(
        &installed,
        other_versions,
        congestion_control,
        bulk_namespace.is_some(),
    )?;

    let (rounds, seconds) = if args.smoke { (1, 1) } else { (args.rounds, args.seconds) };
    let bench = DataplaneBench {
        rounds,
        seconds,
        should_warm_up: !args.smoke,
        initial_h2_rate: if args.smoke { SMOKE_H2_RATE } else { INITIAL_H2_RATE },
        idle_connections: if args.smoke { SMOKE_IDLE_CONNECTIONS } else { IDLE_CONNECTIONS },
        installed: &installed,
        nginx: &nginx,
        script: &script,
        tls: &tls,
        dir: dir.path(),
    };
    let mut reports = Vec::new();
    for case in selected {
        let namespace = bulk_namespace.as_ref().filter(|_| case.is_bulk());
        reports.push(CaseReport::new(case, namespace::run_inside(namespace, || bench.run(case))?));
    }
    let report = DataplaneReport {
        environment,
        rounds,
        window_seconds: seconds,
        connections: CONNECTIONS,
        idle_connections: bench.idle_connections,
        missing,
        cases: reports,
    };
    report.print();
    report.write(&args.json)?;
    println!("\nEvery round: {}", args.json.display());
    Ok(report)
}

/// The installed proxies, and a line about each missing one.
fn find_peers(args: &DataplaneArgs) -> io::Result<(Vec<InstalledProxy>, Vec<String>)> {
    let (mut installed, mut missing) = (Vec::new(), Vec::new());
    for &peer in &args.peers {
        if peer.is_gapless() {
            for named in &args.gapless {
                let found = InstalledProxy::gapless(named).ok_or_else(|| {
                    io::Error::other(format!("{} does not run", named.path.display()))
                })?;
                installed.push(found);
            }
        } else if let Some(found) = InstalledProxy::find(peer, args.envoy.as_deref()) {
            installed.push(found);
        } else {
            missing.push(format!("{} is not installed", peer.name()));
        }
    }
    Ok((installed, missing))
}

/// The selected cases that can be measured; adds a line to `missing` for each other one.
fn select_cases(
    args: &DataplaneArgs,
    installed: &[InstalledProxy],
    has_h2load: bool,
    missing: &mut Vec<String>,
) -> io::Result<Vec<&'static BenchCase>> {
    let is_selected = |case: &&BenchCase| {
        if args.smoke {
            case.is_in_smoke
        } else {
            args.cases.is_empty() || args.cases.iter().any(|name| name == case.name)
        }
    };
    let mut selected = Vec::new();
    for case in CASES.iter().filter(is_selected) {
        if case.load == LoadProfile::H2load && !has_h2load {
            missing.push(format!("{}: h2load is not installed", case.name));
        } else if installed.iter().any(|found| found.peer.is_measured_in(case)) {
            if case.upstream == EndpointProtocol::H2c && args.peers.contains(&Peer::Nginx) {
                missing.push(format!("{}: nginx has HTTP/1.1 only to endpoints", case.name));
            }
            selected.push(case);
        }
    }
    if selected.is_empty() {
        return Err(io::Error::other("no selected proxy can run a selected case"));
    }
    Ok(selected)
}

/// Each idle connection needs a descriptor, here and in the started processes.
fn raise_file_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}
