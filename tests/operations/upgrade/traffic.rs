//! Clients of every kind during a series of upgrades.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually};

/// The number of upgrades in a row.
const UPGRADE_COUNT: u64 = 10;

/// Clients that send one request after another and follow `connection: close`.
struct UpgradeClients {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

#[derive(Clone, Copy)]
enum ClientBehavior {
    KeepAlive,
    /// Keeps its connection, and pauses longer than an upgrade takes.
    MostlyIdle,
    Reconnecting,
    Posting,
}

impl UpgradeClients {
    fn start(address: SocketAddr, behaviors: &[ClientBehavior]) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |&behavior: &ClientBehavior| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || run_client(address, behavior, &stop, &answered))
        };
        let threads = behaviors.iter().map(client).collect();
        Self { stop, answered, threads }
    }

    fn answered(&self) -> u64 {
        self.answered.load(SeqCst)
    }

    /// Stops the clients and returns their failures.
    fn stop(self) -> Vec<String> {
        self.stop.store(true, SeqCst);
        let join_client = |thread: JoinHandle<Vec<String>>| thread.join().expect("no panic");
        self.threads.into_iter().flat_map(join_client).collect()
    }
}

fn run_client(
    address: SocketAddr,
    behavior: ClientBehavior,
    stop: &AtomicBool,
    answered: &AtomicU64,
) -> Vec<String> {
    let mut failures = Vec::new();
    let mut connection = None;
    let (method, body): (_, &[u8]) = match behavior {
        ClientBehavior::Posting => ("POST", b"0123456789"),
        _ => ("GET", b""),
    };
    let pause = match behavior {
        ClientBehavior::MostlyIdle => Duration::from_millis(700),
        _ => Duration::from_millis(1),
    };
    while !stop.load(SeqCst) {
        let opened = connection.take().map_or_else(|| TestClient::connect(address), Ok);
        let result = opened.and_then(|mut client: TestClient| {
            let answer = client.exchange(method, "/", &[], body)?;
            Ok((client, answer))
        });
        match result {
            Ok((client, answer)) if answer.status == 200 => {
                answered.fetch_add(1, SeqCst);
                let is_kept = answer.field("connection") != Some("close");
                connection = Some(client)
                    .filter(|_| is_kept && !matches!(behavior, ClientBehavior::Reconnecting));
            }
            Ok((_, answer)) => failures.push(format!("{:?}", answer.status_and_reason())),
            Err(error) => failures.push(format!("{error:?}")),
        }
        std::thread::sleep(pause);
    }
    failures
}

fn config(one: &TestEndpoint, two: &TestEndpoint, workers: u32) -> ConfigBuilder {
    ConfigBuilder::default()
        .keys(&format!("workers = {workers}"))
        .tables("[headers]\nexpose = true")
        .zone("here/a", &[one.address(), two.address()])
}

#[test]
fn no_request_fails_over_ten_upgrades() {
    let (one, two) = (TestEndpoint::start("one"), TestEndpoint::start("two"));
    let gapless = Gapless::start_ready(&config(&one, &two, 2));
    let behaviors = [
        ClientBehavior::KeepAlive,
        ClientBehavior::KeepAlive,
        ClientBehavior::MostlyIdle,
        ClientBehavior::MostlyIdle,
        ClientBehavior::Reconnecting,
        ClientBehavior::Reconnecting,
        ClientBehavior::Posting,
    ];
    let clients = UpgradeClients::start(gapless.address, &behaviors);
    for upgrades in 1..=UPGRADE_COUNT {
        let before = clients.answered();
        // Every other upgrade changes the number of workers.
        gapless.write_config(&config(&one, &two, 1 + (upgrades % 3) as u32).text());
        gapless.upgrade();
        eventually("requests go on", DEFAULT_TIMEOUT, || clients.answered() > before + 20);
    }
    gapless.wait_for_single_process(4 * DEFAULT_TIMEOUT);
    assert_eq!(gapless.process()["upgrades"], UPGRADE_COUNT);
    let answered = clients.answered();
    let failures = clients.stop();
    assert!(failures.is_empty(), "{} of {answered}: {failures:?}", failures.len());
}

/// The command of a program, if it is installed.
fn spawn_with_stdout(program: &str, arguments: &[&str]) -> Option<std::process::Child> {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().ok()
}

/// Load for one core.
#[test]
fn wrk_sees_no_error_over_five_upgrades() {
    let (one, two) = (TestEndpoint::start("one"), TestEndpoint::start("two"));
    let gapless = Gapless::start_ready(&config(&one, &two, 2));
    let url = format!("http://{}/", gapless.address);
    let Some(wrk) = spawn_with_stdout("wrk", &["-t1", "-c32", "-d12s", "--timeout", "10s", &url])
    else {
        return;
    };
    for _ in 0..5 {
        gapless.upgrade();
    }
    let output = wrk.wait_with_output().expect("an end");
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(report.contains("requests in"), "{report}");
    assert!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
}
