//! Probes in a network that loses every fifth packet.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use gapless::logic::model::outcome::{FailureReason, ProbeOutcome};
use gapless::net::prober::{ProbeConnectionCache, Prober};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{ms, run_on_one_thread, spec};
use crate::support::server::{TestServer, http1_handler, ok_response};

const PROBE_COUNT: usize = 200;

/// Probes under way at once.
const CONCURRENT_PROBES: usize = 20;

/// A network namespace in which one TCP packet in five is lost, in both directions; held open by
/// a sleeping process.
struct LossyNetwork {
    holder_process: Child,
    namespace: File,
}

impl LossyNetwork {
    /// `None` without the permission, or if the kernel cannot drop packets at random.
    fn new() -> Option<Self> {
        let set_up = "ip link set lo up && iptables -w -A INPUT -p tcp -m statistic --mode random \
                      --probability 0.2 -j DROP && echo ready && exec sleep infinity";
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", set_up]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut holder_process = command.spawn().ok()?;
        let mut line = String::new();
        BufReader::new(holder_process.stdout.take()?).read_line(&mut line).ok()?;
        let namespace = File::open(format!("/proc/{}/ns/net", holder_process.id())).ok()?;
        let lossy = Self { holder_process, namespace };
        (line.trim() == "ready").then_some(lossy)
    }
}

impl Drop for LossyNetwork {
    fn drop(&mut self) {
        let _ = self.holder_process.kill();
        let _ = self.holder_process.wait();
    }
}

#[test]
fn packet_loss_is_not_reported_as_timeout() {
    let Some(lossy) = LossyNetwork::new() else {
        println!("skipped: needs root, unshare, ip, and iptables with its statistic match");
        return;
    };
    // A namespace belongs to a thread and to the threads that it starts.
    let outcomes = std::thread::scope(|scope| {
        let inside = || {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(lossy.namespace.as_fd(), network).expect("inside");
            let server = TestServer::start_cleartext(http1_handler(&ok_response("", "fine")));
            run_on_one_thread(probe_all(server.address))
        };
        scope.spawn(inside).join().expect("outcomes")
    });
    let is_timeout = |outcome: &&ProbeOutcome| matches!(outcome, ProbeOutcome::Fail(failure) if failure.reason == FailureReason::Timeout);
    let timeouts = outcomes.iter().filter(is_timeout).count();
    println!(
        "{timeouts} of {PROBE_COUNT} probes were silent where a fifth of the packets gets lost"
    );
    assert!(timeouts * 100 <= PROBE_COUNT, "{timeouts} of {PROBE_COUNT} silent");
    let passed = outcomes.iter().filter(|outcome| outcome.latency().is_some()).count();
    assert_eq!(passed + timeouts, PROBE_COUNT, "{outcomes:?}");
}

async fn probe_all(address: std::net::SocketAddr) -> Vec<ProbeOutcome> {
    let prober = Rc::new(Prober::default());
    let spec = Rc::new(spec("{ http = \"/\", expect_body = \"fine\" }"));
    let tasks = (0..CONCURRENT_PROBES).map(|_| {
        let (prober, spec) = (Rc::clone(&prober), Rc::clone(&spec));
        tokio::task::spawn_local(async move {
            let mut outcomes = Vec::new();
            for _ in 0..PROBE_COUNT / CONCURRENT_PROBES {
                outcomes.push(
                    prober.probe(address, &spec, ms(500), &ProbeConnectionCache::default()).await,
                );
            }
            outcomes
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.extend(task.await.expect("outcomes"));
    }
    outcomes
}
