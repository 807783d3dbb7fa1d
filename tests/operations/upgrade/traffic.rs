//! Clients of every kind, while one process after the other takes over.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::instance::Gapless;
use crate::support::{SOON, eventually};

/// One process after the other.
const UPGRADES: u64 = 10;

/// Clients that ask one request after the other, and do as they are told about their connections.
struct Clients {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

#[derive(Clone, Copy)]
enum Kind {
    KeepAlive,
    /// Keeps its connection, and is silent for longer than a process takes to be replaced.
    Seldom,
    Reconnecting,
    Posting,
}

impl Clients {
    fn start(address: SocketAddr, kinds: &[Kind]) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |&kind: &Kind| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || run(address, kind, &stop, &answered))
        };
        let threads = kinds.iter().map(client).collect();
        Self { stop, answered, threads }
    }

    fn answered(&self) -> u64 {
        self.answered.load(SeqCst)
    }

    /// Ends them: what they met that was not as it should be.
    fn stop(self) -> Vec<String> {
        self.stop.store(true, SeqCst);
        let ended = |thread: JoinHandle<Vec<String>>| thread.join().expect("no panic");
        self.threads.into_iter().flat_map(ended).collect()
    }
}

fn run(address: SocketAddr, kind: Kind, stop: &AtomicBool, answered: &AtomicU64) -> Vec<String> {
    let mut failures = Vec::new();
    let mut kept = None;
    let (method, body): (_, &[u8]) = match kind {
        Kind::Posting => ("POST", b"0123456789"),
        _ => ("GET", b""),
    };
    let pause = match kind {
        Kind::Seldom => Duration::from_millis(700),
        _ => Duration::from_millis(1),
    };
    while !stop.load(SeqCst) {
        let opened = kept.take().map_or_else(|| Client::connect(address), Ok);
        let result = opened.and_then(|mut client: Client| {
            let answer = client.exchange(method, "/", &[], body)?;
            Ok((client, answer))
        });
        match result {
            Ok((client, answer)) if answer.status == 200 => {
                answered.fetch_add(1, SeqCst);
                let is_kept = answer.field("connection") != Some("close");
                kept = Some(client).filter(|_| is_kept && !matches!(kind, Kind::Reconnecting));
            }
            Ok((_, answer)) => failures.push(format!("{:?}", answer.verdict())),
            Err(error) => failures.push(format!("{error:?}")),
        }
        std::thread::sleep(pause);
    }
    failures
}

fn config(one: &Endpoint, two: &Endpoint, workers: u32) -> Config {
    Config::default()
        .keys(&format!("workers = {workers}"))
        .tables("[headers]\nexpose = true")
        .zone("here/a", &[one.address(), two.address()])
}

#[test]
fn no_request_fails_over_ten_upgrades() {
    let (one, two) = (Endpoint::start("one"), Endpoint::start("two"));
    let gapless = Gapless::start_ready(&config(&one, &two, 2));
    let kinds = [
        Kind::KeepAlive,
        Kind::KeepAlive,
        Kind::Seldom,
        Kind::Seldom,
        Kind::Reconnecting,
        Kind::Reconnecting,
        Kind::Posting,
    ];
    let clients = Clients::start(gapless.address, &kinds);
    for upgrades in 1..=UPGRADES {
        let before = clients.answered();
        // Every other one with another number of workers.
        gapless.write(&config(&one, &two, 1 + (upgrades % 3) as u32).text());
        gapless.upgrade();
        eventually("requests go on", SOON, || clients.answered() > before + 20);
    }
    gapless.wait_alone(4 * SOON);
    assert_eq!(gapless.process()["upgrades"], UPGRADES);
    let answered = clients.answered();
    let failures = clients.stop();
    assert!(failures.is_empty(), "{} of {answered}: {failures:?}", failures.len());
}

/// A program's words, if it is installed.
fn words_of(program: &str, arguments: &[&str]) -> Option<std::process::Child> {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().ok()
}

/// As many connections and requests as one core can make.
#[test]
fn wrk_sees_nothing_of_five_upgrades() {
    let (one, two) = (Endpoint::start("one"), Endpoint::start("two"));
    let gapless = Gapless::start_ready(&config(&one, &two, 2));
    let url = format!("http://{}/", gapless.address);
    let Some(wrk) = words_of("wrk", &["-t1", "-c32", "-d12s", "--timeout", "10s", &url]) else {
        return;
    };
    for _ in 0..5 {
        gapless.upgrade();
    }
    let output = wrk.wait_with_output().expect("an end");
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(words.contains("requests in"), "{words}");
    assert!(!words.contains("Socket errors") && !words.contains("Non-2xx"), "{words}");
}
