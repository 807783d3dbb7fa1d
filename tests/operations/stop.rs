//! How an instance ends: politely at the first TERM, at once at the second or at INT.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode};
use crate::support::instance::Gapless;
use crate::support::{SOON, eventually};

/// Long enough that no test waits for it.
const FOR_EVER: &str = "600s";

fn start(lame_duck: &str, drain: &str) -> (Endpoint, Gapless) {
    let endpoint = Endpoint::start("one");
    let table = format!("[shutdown]\nlame_duck = \"{lame_duck}\"\ndrain = \"{drain}\"");
    let config = Config::new().tables(&table).zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_ready(&config);
    (endpoint, gapless)
}

/// A request that the endpoint has, and does not answer yet.
fn under_way(endpoint: &Endpoint, gapless: &Gapless) -> Client {
    let mut client = Client::open(gapless.address);
    let before = endpoint.seen().len();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    eventually("the request is under way", SOON, || endpoint.seen().len() > before);
    client
}

#[test]
fn a_lame_duck_serves_and_says_that_it_goes() {
    let (_endpoint, mut gapless) = start("3s", FOR_EVER);
    assert_eq!(gapless.ask("/readyz").status, 200);
    let mut kept = Client::open(gapless.address);
    assert_eq!(kept.get("/").status, 200);
    gapless.signal(Signal::TERM);
    eventually("it is not ready", SOON, || gapless.ask("/readyz").status == 503);
    assert_eq!(gapless.ask("/healthz").status, 200);
    assert_eq!(kept.get("/").status, 200);
    assert_eq!(gapless.get("/").status, 200, "connections are still taken");
    let status = gapless.wait(SOON);
    assert!(status.success(), "{status}");
    eventually("its last word", SOON, || gapless.log().contains("stopped"));
}

#[test]
fn requests_in_flight_end_well() {
    let (endpoint, mut gapless) = start("0s", FOR_EVER);
    endpoint.set(Mode::Slow(Duration::from_secs(3)));
    let mut waiting = under_way(&endpoint, &gapless);
    let mut idle = Client::open(gapless.address);
    gapless.signal(Signal::TERM);
    eventually("nobody listens", SOON, || Client::connect(gapless.address).is_err());
    assert_eq!(gapless.ask("/readyz").status, 503);
    assert!(idle.is_ended(), "who waits for nothing is let go");
    let answer = waiting.answer("GET").expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "one".to_owned()));
    assert!(gapless.wait(SOON).success());
}

#[test]
fn the_drain_has_an_end() {
    let (endpoint, mut gapless) = start("0s", "1s");
    endpoint.set(Mode::Hang);
    let mut waiting = under_way(&endpoint, &gapless);
    gapless.signal(Signal::TERM);
    assert!(gapless.wait(SOON).success());
    assert!(waiting.answer("GET").is_err());
}

#[test]
fn a_second_term_ends_the_drain() {
    a_second_term_ends_it("0s");
}

#[test]
fn a_second_term_ends_the_lame_duck_and_skips_the_drain() {
    a_second_term_ends_it(FOR_EVER);
}

/// With a drain that would last for ever.
fn a_second_term_ends_it(lame_duck: &str) {
    let (endpoint, mut gapless) = start(lame_duck, FOR_EVER);
    endpoint.set(Mode::Hang);
    let _waiting = under_way(&endpoint, &gapless);
    gapless.signal(Signal::TERM);
    eventually("it is not ready", SOON, || gapless.ask("/readyz").status == 503);
    assert!(gapless.is_running());
    gapless.signal(Signal::TERM);
    gapless.wait(SOON);
}

#[test]
fn an_interrupt_ends_it_at_once() {
    let (endpoint, mut gapless) = start(FOR_EVER, FOR_EVER);
    endpoint.set(Mode::Hang);
    let _waiting = under_way(&endpoint, &gapless);
    gapless.signal(Signal::INT);
    gapless.wait(SOON);
}

#[test]
fn a_request_that_waits_for_a_rescue_gets_it_while_draining() {
    let (near, far) = (Endpoint::start("near"), Endpoint::start("far"));
    let config = Config::new()
        .tables("[shutdown]\ndrain = \"600s\"")
        .pool("detect = { interval = \"1s\", timeout = \"500ms\" }")
        .zone("here/near", &[near.address()])
        .zone("here/far", &[far.address()]);
    let mut gapless = Gapless::start_ready(&config);
    near.set_all(Mode::Hang);
    let mut waiting = under_way(&near, &gapless);
    gapless.signal(Signal::TERM);
    let answer = waiting.answer("GET").expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "far".to_owned()));
    assert!(gapless.wait(SOON).success());
}

/// What the kernel has taken for a process that is about to stop is answered too.
#[test]
fn connections_that_wait_at_the_door_are_answered_before_it_closes() {
    let (_endpoint, mut gapless) = start("0s", FOR_EVER);
    assert_eq!(gapless.get("/").status, 200);
    gapless.signal(Signal::STOP);
    let mut waiting: Vec<Client> = (0..200).map(|_| Client::open(gapless.address)).collect();
    for client in &mut waiting {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    }
    gapless.signal(Signal::TERM);
    gapless.signal(Signal::CONT);
    for client in &mut waiting {
        assert_eq!(client.answer("GET").expect("an answer").status, 200);
        assert!(client.is_ended());
    }
    assert!(gapless.wait(SOON).success());
}
