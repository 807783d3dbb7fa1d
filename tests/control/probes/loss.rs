//! A network that loses every fifth packet.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use gapless::logic::outcome::{Outcome, Reason};
use gapless::net::prober::{Kept, Prober};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{ms, on_one_thread, spec};
use crate::support::server::{Server, http1, ok};

const PROBES: usize = 200;

/// Probes under way at once.
const AT_ONCE: usize = 20;

/// A network of its own in which one TCP packet in five gets lost, in both directions; held open by
/// a process that sleeps in it.
struct Lossy {
    holder: Child,
    link: File,
}

impl Lossy {
    /// `None` where this user may not make one, or the kernel cannot lose packets at random.
    fn new() -> Option<Self> {
        let set_up = "ip link set lo up && iptables -w -A INPUT -p tcp -m statistic --mode random \
                      --probability 0.2 -j DROP && echo ready && exec sleep infinity";
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", set_up]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut holder = command.spawn().ok()?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take()?).read_line(&mut line).ok()?;
        let link = File::open(format!("/proc/{}/ns/net", holder.id())).ok()?;
        let lossy = Self { holder, link };
        (line.trim() == "ready").then_some(lossy)
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[test]
fn lost_packets_are_not_silence() {
    let Some(lossy) = Lossy::new() else {
        println!("skipped: needs root, unshare, ip, and iptables with its statistic match");
        return;
    };
    // A network belongs to a thread, and to those that it starts.
    let outcomes = std::thread::scope(|scope| {
        let inside = || {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(lossy.link.as_fd(), network).expect("inside");
            let server = Server::plain(http1(&ok("", "fine")));
            on_one_thread(ask_all(server.address))
        };
        scope.spawn(inside).join().expect("outcomes")
    });
    let silent = |outcome: &&Outcome| matches!(outcome, Outcome::Fail(failure) if failure.reason == Reason::Timeout);
    let silent = outcomes.iter().filter(silent).count();
    println!("{silent} of {PROBES} probes were silent where a fifth of the packets gets lost");
    assert!(silent * 100 <= PROBES, "{silent} of {PROBES} silent");
    let passed = outcomes.iter().filter(|outcome| outcome.latency().is_some()).count();
    assert_eq!(passed + silent, PROBES, "{outcomes:?}");
}

async fn ask_all(address: std::net::SocketAddr) -> Vec<Outcome> {
    let prober = Rc::new(Prober::default());
    let spec = Rc::new(spec("{ http = \"/\", expect_body = \"fine\" }"));
    let tasks = (0..AT_ONCE).map(|_| {
        let (prober, spec) = (Rc::clone(&prober), Rc::clone(&spec));
        tokio::task::spawn_local(async move {
            let mut outcomes = Vec::new();
            for _ in 0..PROBES / AT_ONCE {
                outcomes.push(prober.probe(address, &spec, ms(500), &Kept::default()).await);
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
