//! Probes as configured in a file, against real servers.

mod blocked_thread;
mod http;
mod http2;
mod packet_loss;
mod running_instance;
mod tcp;
mod tls;

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use gapless::config;
use gapless::logic::model::outcome::{Failure, FailureLayer, FailureReason, ProbeOutcome};
use gapless::logic::probing::probe::ProbeSpec;
use gapless::net::prober::{ProbeConnectionCache, Prober};

/// Long enough for any healthy answer on a busy machine.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Parses `probe = …` with files in `directory`.
#[track_caller]
fn spec_at(directory: &Path, probe: &str) -> ProbeSpec {
    let text = format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\n[[route]]\npool = \"web\"\n\
         [pool.web]\nprobe = {probe}\ndetect = {{ interval = \"9s\", timeout = \"9s\", down_interval = \"9s\" }}\n\
         [[pool.web.zone]]\nname = \"a/b\"\nendpoints = [\"127.0.0.1:1\"]\n"
    );
    let name = directory.join("test.toml").display().to_string();
    let loaded = config::parse(&name, &text).unwrap_or_else(|report| panic!("{report}"));
    loaded.config.topology.pools[0].probes[0].clone()
}

#[track_caller]
fn spec(probe: &str) -> ProbeSpec {
    spec_at(Path::new(""), probe)
}

/// Runs on a current-thread runtime, as control does.
fn run_on_one_thread<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime"), future)
}

fn probe_within(address: SocketAddr, spec: &ProbeSpec, timeout: Duration) -> ProbeOutcome {
    let prober = Rc::new(Prober::default());
    run_on_one_thread(async {
        prober.probe(address, spec, timeout, &ProbeConnectionCache::default()).await
    })
}

fn probe_once(address: SocketAddr, spec: &ProbeSpec) -> ProbeOutcome {
    probe_within(address, spec, PROBE_TIMEOUT)
}

/// Probes several times with one connection cache.
fn probe_repeatedly(address: SocketAddr, spec: &ProbeSpec, times: usize) -> Vec<ProbeOutcome> {
    probe_at_intervals(Duration::ZERO, address, spec, times)
}

/// The same with pauses in which a server may close the cached connection.
fn probe_with_pauses(address: SocketAddr, spec: &ProbeSpec, times: usize) -> Vec<ProbeOutcome> {
    probe_at_intervals(ms(100), address, spec, times)
}

fn probe_at_intervals(
    pause: Duration,
    address: SocketAddr,
    spec: &ProbeSpec,
    times: usize,
) -> Vec<ProbeOutcome> {
    let (prober, cache) = (Prober::default(), ProbeConnectionCache::default());
    run_on_one_thread(async {
        let mut outcomes = Vec::new();
        for _ in 0..times {
            outcomes.push(prober.probe(address, spec, PROBE_TIMEOUT, &cache).await);
            tokio::time::sleep(pause).await;
        }
        outcomes
    })
}

fn is_pass(outcome: ProbeOutcome) -> bool {
    matches!(outcome, ProbeOutcome::Pass { .. })
}

fn failed_outcome(layer: FailureLayer, reason: FailureReason) -> ProbeOutcome {
    ProbeOutcome::Fail(Failure { layer, reason })
}
