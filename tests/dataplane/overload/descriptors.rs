//! Scarce descriptors: no client is lost, and probes and the admin listener keep theirs.

use std::process::Output;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{closed_connections, start_pair_with};
use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::eventually;
use crate::support::instance::{Gapless, command_with_descriptor_limit};

/// A limit that leaves few descriptors for clients.
const FEW_DESCRIPTORS: u64 = 100;

/// Many more clients than there are descriptors.
const CLIENT_COUNT: usize = 300;

fn start_with_descriptors(descriptors: u64, config: ConfigBuilder) -> (TestEndpoint, Gapless) {
    let endpoint = TestEndpoint::start("one");
    let config = config.zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_with_descriptor_limit(&config, descriptors);
    gapless.wait_all_up();
    (endpoint, gapless)
}

#[test]
fn descriptor_exhaustion_keeps_admin_and_probes_working() {
    let (endpoint, mut gapless) = start_with_descriptors(FEW_DESCRIPTORS, ConfigBuilder::new());
    let mut clients: Vec<TestClient> =
        (0..CLIENT_COUNT).map(|_| TestClient::open(gapless.address)).collect();
    // Half a request each: no connection is idle.
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\n").expect("sent");
    }
    let client_limit = gapless.metric("gapless_descriptors_limit") / 2.0;
    eventually("there is no room", Duration::from_secs(5), || {
        gapless.metric("gapless_client_connections") >= client_limit.floor()
    });
    let (cpu, began, probes) = (gapless.cpu_time(), Instant::now(), endpoint.probes().len());
    eventually("probes go on", Duration::from_secs(10), || endpoint.probes().len() >= probes + 3);
    let mut admin_clients: Vec<TestClient> =
        (0..20).map(|_| TestClient::open(gapless.admin)).collect();
    for admin_client in &mut admin_clients {
        admin_client.send("GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
        assert_eq!(admin_client.read_response("GET").expect("an answer").status, 200);
    }
    let cpu_share = (gapless.cpu_time() - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    // An accept loop without a pause would take most of a core.
    assert!(cpu_share < 0.3, "{cpu_share} of a core, for nothing");
    assert!(!gapless.log().contains("out of descriptors"), "there are some for others");
    drop(clients);
    let released = Instant::now();
    assert_eq!(gapless.get("/").status, 200);
    assert!(released.elapsed() < Duration::from_secs(1), "{:?}", released.elapsed());
    assert!(gapless.is_running());
    assert_eq!(gapless.endpoint_state(endpoint.address()), "up");
}

#[test]
fn idle_client_is_closed_for_a_new_one() {
    let (_endpoint, gapless) = start_with_descriptors(FEW_DESCRIPTORS, ConfigBuilder::new());
    let mut clients = Vec::new();
    for number in 0..CLIENT_COUNT / 3 {
        let mut client = TestClient::open(gapless.address);
        assert_eq!(client.get("/").status, 200, "number {number}");
        clients.push(client);
    }
    assert!(closed_connections(&gapless, "descriptors") > 0);
    assert_eq!(clients.last_mut().expect("one").get("/").status, 200, "the last one is still here");
}

/// Idle connections to some endpoints do not block requests to others.
#[test]
fn idle_endpoint_connections_are_closed_for_new_ones() {
    let endpoints: Vec<TestEndpoint> = (0..12).map(|_| TestEndpoint::start("one")).collect();
    let addresses: Vec<_> = endpoints.iter().map(TestEndpoint::address).collect();
    let gapless = Gapless::start_with_descriptor_limit(
        &ConfigBuilder::new().zone("here/a", &addresses),
        FEW_DESCRIPTORS,
    );
    gapless.wait_all_up();
    let mut client = TestClient::open(gapless.address);
    for _ in 0..100 {
        assert_eq!(client.get("/").status, 200);
    }
    assert!(gapless.metric("gapless_descriptors") <= gapless.metric("gapless_descriptors_limit"));
    let used_endpoints =
        endpoints.iter().filter(|endpoint| !endpoint.requests().is_empty()).count();
    assert!(used_endpoints > 6, "{used_endpoints} endpoints were asked");
}

fn run_with_descriptors(descriptors: u64, command: &str, config: ConfigBuilder) -> Output {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("gapless.toml");
    let endpoint = TestEndpoint::start("one");
    std::fs::write(&file, config.zone("here/a", &[endpoint.address()]).text()).expect("written");
    command_with_descriptor_limit(descriptors).arg(command).arg(&file).output().expect("it ran")
}

#[test]
fn excessive_limits_are_rejected_and_defaults_adapt() {
    let with_connections = |connections: u32| {
        ConfigBuilder::new().tables(&format!("[limits]\nconnections = {connections}"))
    };
    for command in ["check", "run"] {
        let refused = run_with_descriptors(1_024, command, with_connections(2_000));
        let text = [refused.stdout, refused.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(refused.status.code(), Some(64), "{text}");
        for expected in [
            "2000 connections at a listener do not fit into the 1024 descriptors",
            "connections = 2000",
            "write at most 465, or raise the limit to 4093",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }
    assert!(run_with_descriptors(1_024, "check", with_connections(400)).status.success());
    assert!(
        run_with_descriptors(1_024, "check", ConfigBuilder::new()).status.success(),
        "the default adapts"
    );
    let refused = run_with_descriptors(70, "check", ConfigBuilder::new());
    assert_eq!(refused.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&refused.stdout).contains("too few for probes, the operator"));
}

#[test]
fn open_connections_and_descriptors_have_metrics() {
    let (_endpoint, gapless) = start_pair_with(ConfigBuilder::new());
    let mut client = TestClient::open(gapless.address);
    assert_eq!(client.get("/").status, 200);
    assert_eq!(gapless.metric("gapless_client_connections"), 1.0);
    assert_eq!(gapless.metric("gapless_descriptors"), 2.0, "and one to the endpoint");
    drop(client);
    eventually("it is gone", Duration::from_secs(5), || {
        gapless.metric("gapless_client_connections") == 0.0
    });
}

/// Dripped heads occupy connections for a limited time.
#[test]
fn slow_head_is_cut_early_at_the_descriptor_limit() {
    let (_endpoint, gapless) = start_with_descriptors(
        FEW_DESCRIPTORS,
        ConfigBuilder::new().tables("[limits]\nheader_timeout = \"8s\""),
    );
    let mut slow_clients: Vec<TestClient> =
        (0..3).map(|_| TestClient::open(gapless.address)).collect();
    for client in &mut slow_clients {
        client.send("GET / HTTP/1.1\r\n").expect("sent");
    }
    let started = Instant::now();
    assert_eq!(gapless.get("/").status, 200);
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    for client in &mut slow_clients {
        assert_eq!(client.read_response("GET").expect("an answer").status, 408);
    }
}
