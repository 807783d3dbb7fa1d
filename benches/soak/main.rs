//! A million mixed POSTs while endpoints are killed, stopped and made to fail at random. No POST is
//! executed twice unless its client and route both allow it, and none is lost without an error at
//! its client. Endpoints record each POST in a file before they answer. The exit code is 1 if a
//! rule is violated, or if no failure affected a POST.
//!
//! `cargo bench --bench soak` sends a million (three to five minutes).
//! `cargo bench --bench soak -- --smoke` tests the bench itself (less than half a minute).
//! `cargo bench --bench soak -- --count 100000 --seed 7 --json soak.json`

use std::fs;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

mod args;
mod chaos;
mod clients;
mod evaluation;
mod h2_client;
mod post;
mod report;
mod sent_posts;

#[path = "../support/bench_main.rs"]
mod bench_main;
#[path = "../support/certificates.rs"]
#[allow(dead_code, reason = "no probe here speaks TLS")]
mod certificates;
#[path = "../support/endpoint.rs"]
mod endpoint;
#[path = "../support/endpoint_tls.rs"]
#[allow(dead_code, reason = "no probe here speaks TLS")]
mod endpoint_tls;
#[path = "../support/executed_posts.rs"]
#[allow(dead_code, reason = "the time of an execution does not matter here")]
mod executed_posts;
#[path = "../support/fault_class.rs"]
#[allow(dead_code, reason = "only some of the means are used here")]
mod fault_class;
#[path = "../support/fleet.rs"]
#[allow(dead_code, reason = "when a failure was in force does not matter here")]
mod fleet;
#[path = "../support/gapless_process.rs"]
#[allow(dead_code, reason = "verdicts do not matter here")]
mod gapless_process;
#[path = "../support/http1_message.rs"]
#[allow(dead_code, reason = "the answering endpoint does not matter here")]
mod http1_message;
#[path = "../support/keep_alive_connections.rs"]
mod keep_alive_connections;
#[path = "../support/layout.rs"]
#[allow(dead_code, reason = "one pool is enough here, and zones do not matter")]
mod layout;
#[path = "../support/namespace.rs"]
mod namespace;
#[path = "../support/packet_drops.rs"]
#[allow(dead_code, reason = "whether packets can be dropped does not matter here")]
mod packet_drops;
#[path = "../../tests/support/pki.rs"]
#[allow(dead_code, reason = "no probe here speaks TLS")]
mod pki;
#[path = "../support/run_deadline.rs"]
mod run_deadline;
#[path = "../support/sample.rs"]
#[allow(dead_code, reason = "only how a request ends is used here")]
mod sample;
#[path = "../support/table.rs"]
mod table;

use args::SoakArgs;
use clients::SoakClients;
use endpoint::EndpointSettings;
use evaluation::SoakFindings;
use executed_posts::ExecutedPosts;
use fleet::BenchFleet;
use gapless_process::GaplessProcess;
use layout::POOL_ENDPOINTS;
use packet_drops::BenchNamespace;
use report::SoakReport;
use run_deadline::RunDeadline;

/// The service time of an endpoint; kills interrupt many requests that have begun.
const SERVICE_TIME: Duration = Duration::from_millis(2);

/// The time limit for all endpoints to serve again.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Time between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

const PROBE: &str = r#"{ http = "/healthz" }"#;

fn main() -> ExitCode {
    bench_main::main("soak", || run(&SoakArgs::parse()))
}

/// Runs the bench; returns whether all rules hold.
fn run(args: &SoakArgs) -> io::Result<bool> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("seed {seed}");
    let run_deadline = RunDeadline::start(Duration::from_secs(args.minutes * 60))?;
    let namespace = BenchNamespace::new()?;
    let network = namespace.as_ref().map(|namespace| &namespace.network);
    let report = namespace::run_inside(network, || run_soak(args, seed, &run_deadline))?;
    print!("{}", report.as_text());
    if let Some(file) = &args.json {
        fs::write(file, format!("{:#}\n", report.as_json()))?;
    }
    Ok(report.is_good() && !run_deadline.is_over())
}

fn run_soak(args: &SoakArgs, seed: u64, run_deadline: &RunDeadline) -> io::Result<SoakReport> {
    let dir = tempfile::tempdir()?;
    let posts = dir.path().join("posts");
    let setting =
        EndpointSettings { service: SERVICE_TIME, certificates: None, posts: Some(posts.clone()) };
    let mut fleet = BenchFleet::start((0..POOL_ENDPOINTS).map(layout::endpoint_address), setting)?;
    let config =
        |listen, admin| layout::equal_pools_config(1, PROBE, listen, admin) + &post::extra_config();
    let instance = GaplessProcess::start(&args.gapless, config, dir.path(), run_deadline)?;
    let (started, count) = (Instant::now(), args.post_count());
    let clients = SoakClients::start(instance.listen, seed, count)?;
    let mut last_progress = started;
    let fault_counts = chaos::inject_random_faults(&mut fleet, seed, run_deadline, || {
        if last_progress.elapsed() > PROGRESS_INTERVAL {
            last_progress = Instant::now();
            eprintln!(
                "{:.0} s: {} POSTs",
                started.elapsed().as_secs_f64(),
                clients.started_count()
            );
        }
        clients.is_done()
    })?;
    let sent = clients.stop();
    let duration = started.elapsed();
    let faults_ended = Instant::now();
    let is_up =
        run_deadline.poll_until(RECOVERY_TIMEOUT, || Ok(instance.is_all_up()?.then_some(())))?;
    eprintln!("all serve again after {:.1} s", faults_ended.elapsed().as_secs_f64());
    // Resumed endpoints have read all received bytes by now.
    let findings = SoakFindings {
        fault_counts,
        has_recovered: is_up.is_some(),
        ..SoakFindings::from_posts(&sent, &ExecutedPosts::read(&posts)?)
    };
    Ok(SoakReport { seed, count, duration, findings })
}
