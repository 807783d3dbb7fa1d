//! Probes as they are written in a file, against real servers.

mod http;
mod http2;
mod loss;
mod program;
mod tcp;
mod time;
mod tls;

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use gapless::config;
use gapless::logic::outcome::{Failure, Layer, Outcome, Reason};
use gapless::logic::probe::ProbeSpec;
use gapless::net::prober::{Kept, Prober};

/// Long enough for any healthy answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The probe that `probe = …` says, with files in `directory`.
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

/// Runs on one thread, as control does.
fn on_one_thread<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime"), future)
}

/// Probes once.
fn ask_within(address: SocketAddr, spec: &ProbeSpec, timeout: Duration) -> Outcome {
    let prober = Rc::new(Prober::default());
    on_one_thread(async { prober.probe(address, spec, timeout, &Kept::default()).await })
}

fn ask(address: SocketAddr, spec: &ProbeSpec) -> Outcome {
    ask_within(address, spec, PATIENCE)
}

/// Probes several times with what is kept between them.
fn ask_often(address: SocketAddr, spec: &ProbeSpec, times: usize) -> Vec<Outcome> {
    ask_every(Duration::ZERO, address, spec, times)
}

/// The same, with pauses in which a server may close what is kept.
fn ask_with_pauses(address: SocketAddr, spec: &ProbeSpec, times: usize) -> Vec<Outcome> {
    ask_every(ms(100), address, spec, times)
}

fn ask_every(pause: Duration, address: SocketAddr, spec: &ProbeSpec, times: usize) -> Vec<Outcome> {
    let (prober, kept) = (Prober::default(), Kept::default());
    on_one_thread(async {
        let mut outcomes = Vec::new();
        for _ in 0..times {
            outcomes.push(prober.probe(address, spec, PATIENCE, &kept).await);
            tokio::time::sleep(pause).await;
        }
        outcomes
    })
}

fn passes(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Pass { .. })
}

fn failed(layer: Layer, reason: Reason) -> Outcome {
    Outcome::Fail(Failure { layer, reason })
}
