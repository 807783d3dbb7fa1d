//! Too few descriptors: nobody is lost, and the operator and probes have theirs.

use std::process::Output;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{closed, pair_with};
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::eventually;
use crate::support::instance::{Gapless, limited};

/// Descriptors with which hardly anything is left for clients.
const FEW: u64 = 100;

/// Many more clients than there are descriptors.
const CLIENTS: usize = 300;

fn under(descriptors: u64, config: Config) -> (Endpoint, Gapless) {
    let endpoint = Endpoint::start("one");
    let config = config.zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_limited(&config, descriptors);
    gapless.wait_all_up();
    (endpoint, gapless)
}

#[test]
fn with_more_clients_than_descriptors_the_operator_and_probes_go_on() {
    let (endpoint, mut gapless) = under(FEW, Config::new());
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::open(gapless.address)).collect();
    // Half a request each: there is nobody idle to send away.
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\n").expect("sent");
    }
    let at_most = gapless.metric("gapless_descriptors_limit") / 2.0;
    eventually("there is no room", Duration::from_secs(5), || {
        gapless.metric("gapless_client_connections") >= at_most.floor()
    });
    let (cpu, began, probes) = (gapless.cpu(), Instant::now(), endpoint.probes().len());
    eventually("probes go on", Duration::from_secs(10), || endpoint.probes().len() >= probes + 3);
    let mut operators: Vec<Client> = (0..20).map(|_| Client::open(gapless.admin)).collect();
    for operator in &mut operators {
        operator.send("GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
        assert_eq!(operator.answer("GET").expect("an answer").status, 200);
    }
    let busy = (gapless.cpu() - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    // Whoever tries again at once takes most of a core, even here where nothing is optimised.
    assert!(busy < 0.3, "{busy} of a core, for nothing");
    assert!(!gapless.log().contains("out of descriptors"), "there are some for others");
    drop(clients);
    let released = Instant::now();
    assert_eq!(gapless.get("/").status, 200);
    assert!(released.elapsed() < Duration::from_secs(1), "{:?}", released.elapsed());
    assert!(gapless.is_running());
    assert_eq!(gapless.state(endpoint.address()), "up");
}

#[test]
fn who_is_idle_makes_room_for_who_is_not() {
    let (_endpoint, gapless) = under(FEW, Config::new());
    let mut clients = Vec::new();
    for number in 0..CLIENTS / 3 {
        let mut client = Client::open(gapless.address);
        assert_eq!(client.get("/").status, 200, "number {number}");
        clients.push(client);
    }
    assert!(closed(&gapless, "descriptors") > 0);
    assert_eq!(clients.last_mut().expect("one").get("/").status, 200, "the last one is still here");
}

/// Idle connections to some endpoints do not keep others from being asked.
#[test]
fn idle_connections_to_endpoints_give_way() {
    let endpoints: Vec<Endpoint> = (0..12).map(|_| Endpoint::start("one")).collect();
    let addresses: Vec<_> = endpoints.iter().map(Endpoint::address).collect();
    let gapless = Gapless::start_limited(&Config::new().zone("here/a", &addresses), FEW);
    gapless.wait_all_up();
    let mut client = Client::open(gapless.address);
    for _ in 0..100 {
        assert_eq!(client.get("/").status, 200);
    }
    assert!(gapless.metric("gapless_descriptors") <= gapless.metric("gapless_descriptors_limit"));
    let asked = endpoints.iter().filter(|endpoint| !endpoint.seen().is_empty()).count();
    assert!(asked > 6, "{asked} endpoints were asked");
}

fn checked(descriptors: u64, command: &str, config: Config) -> Output {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("gapless.toml");
    let endpoint = Endpoint::start("one");
    std::fs::write(&file, config.zone("here/a", &[endpoint.address()]).text()).expect("written");
    limited(descriptors).arg(command).arg(&file).output().expect("it ran")
}

#[test]
fn limits_that_do_not_fit_are_refused_and_defaults_adapt() {
    let asking =
        |connections: u32| Config::new().tables(&format!("[limits]\nconnections = {connections}"));
    for command in ["check", "run"] {
        let refused = checked(1_024, command, asking(2_000));
        let said = [refused.stdout, refused.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(refused.status.code(), Some(64), "{said}");
        for part in [
            "2000 connections at a listener do not fit into the 1024 descriptors",
            "connections = 2000",
            "write at most 465, or raise the limit to 4093",
        ] {
            assert!(said.contains(part), "{part}\n{said}");
        }
    }
    assert!(checked(1_024, "check", asking(400)).status.success());
    assert!(checked(1_024, "check", Config::new()).status.success(), "the default adapts");
    let refused = checked(70, "check", Config::new());
    assert_eq!(refused.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&refused.stdout).contains("too few for probes, the operator"));
}

#[test]
fn what_is_open_is_shown() {
    let (_endpoint, gapless) = pair_with(Config::new());
    let mut client = Client::open(gapless.address);
    assert_eq!(client.get("/").status, 200);
    assert_eq!(gapless.metric("gapless_client_connections"), 1.0);
    assert_eq!(gapless.metric("gapless_descriptors"), 2.0, "and one to the endpoint");
    drop(client);
    eventually("it is gone", Duration::from_secs(5), || {
        gapless.metric("gapless_client_connections") == 0.0
    });
}

/// Drops of heads hold what there is for a part of the time only.
#[test]
fn who_holds_the_last_descriptors_is_hurried() {
    let (_endpoint, gapless) =
        under(FEW, Config::new().tables("[limits]\nheader_timeout = \"8s\""));
    let mut slow: Vec<Client> = (0..3).map(|_| Client::open(gapless.address)).collect();
    for client in &mut slow {
        client.send("GET / HTTP/1.1\r\n").expect("sent");
    }
    let began = Instant::now();
    assert_eq!(gapless.get("/").status, 200);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    for client in &mut slow {
        assert_eq!(client.answer("GET").expect("an answer").status, 408);
    }
}
