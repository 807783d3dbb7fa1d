//! A million mixed POSTs, while their endpoints are killed, stopped and made to err at random: none is
//! executed twice but those whose client and route both promised that they may be, and none is lost
//! without an error at its client. Endpoints write down what they have read before they answer, in a file
//! that outlives them. Exit code 1 if that does not hold, or if nothing was at stake.
//!
//! `cargo bench --bench soak` sends a million (three to five minutes).
//! `cargo bench --bench soak -- --smoke` sees that all of this works (less than half a minute).
//! `cargo bench --bench soak -- --count 100000 --seed 7 --json soak.json`

use std::fs;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

mod args;
mod clients;
mod h2_client;
mod havoc;
mod judge;
mod post;
mod report;
mod sent;

#[path = "../detection/certificates.rs"]
#[allow(dead_code, reason = "no probe here speaks TLS")]
mod certificates;
#[path = "../detection/class.rs"]
#[allow(dead_code, reason = "only some of the means are used here")]
mod class;
#[path = "../detection/endpoint.rs"]
mod endpoint;
#[path = "../detection/fleet.rs"]
#[allow(dead_code, reason = "when a failure was in force does not matter here")]
mod fleet;
#[path = "../detection/instance.rs"]
#[allow(dead_code, reason = "verdicts do not matter here")]
mod instance;
#[path = "../detection/kept.rs"]
mod kept;
#[path = "../detection/layout.rs"]
#[allow(dead_code, reason = "one pool is enough here, and zones do not matter")]
mod layout;
#[path = "../detection/namespace.rs"]
#[allow(dead_code, reason = "whether packets can be dropped does not matter here")]
mod namespace;
#[path = "../../tests/support/pki.rs"]
#[allow(dead_code, reason = "no probe here speaks TLS")]
mod pki;
#[path = "../failover/posts.rs"]
#[allow(dead_code, reason = "when a POST was executed does not matter here")]
mod posts;
#[path = "../detection/program.rs"]
mod program;
#[path = "../detection/sample.rs"]
#[allow(dead_code, reason = "only how a request ends is used here")]
mod sample;
#[path = "../dataplane/table.rs"]
mod table;
#[path = "../detection/watch.rs"]
mod watch;
#[path = "../detection/wire.rs"]
#[allow(dead_code, reason = "who answered does not matter here")]
mod wire;

use args::Args;
use clients::Clients;
use endpoint::Setting;
use fleet::Fleet;
use instance::Instance;
use judge::Findings;
use layout::POOL_ENDPOINTS;
use namespace::Namespace;
use posts::Executed;
use report::Report;
use watch::Watch;

/// How long an endpoint takes for a request: kills meet many that have begun.
const SERVICE_TIME: Duration = Duration::from_millis(2);

/// How long everybody may take to serve again.
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);

/// Between two lines of progress.
const TELLS_EVERY: Duration = Duration::from_secs(10);

/// The pool's probe.
const PROBE: &str = r#"{ http = "/healthz" }"#;

fn main() -> ExitCode {
    program::main("soak", || run(&Args::parse()))
}

/// Whether nothing was done twice, and nothing lost in silence.
fn run(args: &Args) -> io::Result<bool> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("seed {seed}");
    let watch = Watch::start(Duration::from_secs(args.minutes * 60))?;
    let namespace = Namespace::new()?;
    let report = namespace::inside(namespace.as_ref(), || soak(args, seed, &watch))?;
    print!("{}", report.as_text());
    if let Some(file) = &args.json {
        fs::write(file, format!("{:#}\n", report.as_json()))?;
    }
    Ok(report.is_good() && !watch.is_over())
}

fn soak(args: &Args, seed: u64, watch: &Watch) -> io::Result<Report> {
    let dir = tempfile::tempdir()?;
    let posts = dir.path().join("posts");
    let setting = Setting { service: SERVICE_TIME, certificates: None, posts: Some(posts.clone()) };
    let mut fleet = Fleet::start((0..POOL_ENDPOINTS).map(layout::address), setting)?;
    let config = |listen, admin| layout::config(1, PROBE, listen, admin) + &post::tables();
    let instance = Instance::start(&args.gapless, config, dir.path(), watch)?;
    let (began, count) = (Instant::now(), args.posts());
    let clients = Clients::start(instance.listen, seed, count)?;
    let mut told = began;
    let havoc = havoc::wreak(&mut fleet, seed, watch, || {
        if told.elapsed() > TELLS_EVERY {
            told = Instant::now();
            eprintln!("{:.0} s: {} POSTs", began.elapsed().as_secs_f64(), clients.begun());
        }
        clients.are_done()
    })?;
    let sent = clients.stop();
    let took = began.elapsed();
    let peace = Instant::now();
    let is_up = watch.until(RECOVERS_WITHIN, || Ok(instance.are_all_up()?.then_some(())))?;
    eprintln!("all serve again after {:.1} s", peace.elapsed().as_secs_f64());
    // Whoever was stopped has by now read all that it had got.
    let findings = Findings {
        havoc,
        has_recovered: is_up.is_some(),
        ..Findings::of(&sent, &Executed::read(&posts)?)
    };
    Ok(Report { seed, count, took, findings })
}
