//! Circuit breakers: what is at its limit is passed by, waited for, or refused, and never blamed.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::support::client::{Answer, Client};
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode, Next};
use crate::support::instance::Gapless;
use crate::support::{SOON, eventually};

/// Lets requests be held at an endpoint, and go on one by one.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<usize>, Condvar)>);

impl Gate {
    /// Lets `count` more requests pass.
    fn open(&self, count: usize) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) += count;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let free = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = self.0.1.wait_timeout_while(free, SOON, |free| *free == 0);
        let (mut free, _) = passed.unwrap_or_else(PoisonError::into_inner);
        *free = free.saturating_sub(1);
    }

    /// Answers with the request's `x-id` as soon as it may pass.
    fn mode(&self) -> Mode {
        let gate = self.clone();
        Mode::script(move |head, wire| {
            gate.pass();
            let id = head.field("x-id").unwrap_or("none");
            let length = id.len();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{id}");
            wire.send(answer).map(|()| Next::Keep)
        })
    }
}

struct World {
    near: Endpoint,
    far: Endpoint,
    gate: Gate,
    gapless: Gapless,
}

impl World {
    /// Two zones; requests to the near one are held.
    fn new(limits: &str) -> Self {
        Self::with(limits, Config::new(), true)
    }

    /// One endpoint, where requests are held.
    fn alone(limits: &str) -> Self {
        Self::with(limits, Config::new(), false)
    }

    fn with(limits: &str, config: Config, is_two: bool) -> Self {
        let (near, far) = (Endpoint::start("near"), Endpoint::start("far"));
        let gate = Gate::default();
        near.set(gate.mode());
        let mut config = config.pool(limits).pool("detect = { down_after = 1000 }");
        config = config.zone("here/near", &[near.address()]);
        if is_two {
            config = config.zone("here/far", &[far.address()]);
        }
        let gapless = Gapless::start_ready(&config);
        Self { near, far, gate, gapless }
    }

    fn send(&self, id: &str) -> Client {
        let mut client = Client::open(self.gapless.address);
        let head = format!("GET / HTTP/1.1\r\nhost: a\r\nx-id: {id}\r\n\r\n");
        client.send(head).expect("sent");
        client
    }

    /// Sends one and waits until the near endpoint holds it.
    fn hold(&self, id: &str) -> Client {
        let client = self.send(id);
        eventually("it is held", SOON, || self.near.count(id) == 1);
        client
    }

    /// Sends one that waits for a connection.
    fn wait(&self, id: &str, in_flight: u64) -> Client {
        let client = self.send(id);
        eventually("it waits", SOON, || self.status()["in_flight"] == in_flight);
        client
    }

    fn status(&self) -> serde_json::Value {
        self.gapless.endpoint(self.near.address())
    }

    #[track_caller]
    fn rejections(&self, scope: &str, limit: &str) -> f64 {
        let labels = format!("pool=\"web\",scope=\"{scope}\",limit=\"{limit}\"");
        self.gapless.metric(&format!("gapless_breaker_rejections_total{{{labels}}}"))
    }

    /// Nobody has anything to say against the endpoint.
    #[track_caller]
    fn assert_not_blamed(&self) {
        let status = self.status();
        assert_eq!((&status["state"], &status["traffic"]["errors"]), (&"up".into(), &0.into()));
        assert_eq!(status["traffic"]["failed"], 0);
    }
}

#[track_caller]
fn text(mut client: Client) -> String {
    let answer: Answer = client.answer("GET").expect("an answer");
    assert_eq!(answer.status, 200, "{:?}", answer.verdict());
    answer.text()
}

#[test]
fn an_endpoint_with_all_the_requests_it_may_have_is_passed_by() {
    let world = World::new("limits = { endpoint = { requests = 1 } }");
    let held = world.hold("one");
    let second = world.gapless.get("/");
    assert_eq!((second.status, second.text()), (200, "far".to_owned()));
    assert_eq!(second.field("x-gapless-attempts"), Some("1"), "it was nowhere before");
    world.far.set(world.gate.mode());
    let other = world.send("two");
    eventually("both are held", SOON, || world.far.count("two") == 1);
    assert_eq!(world.gapless.get("/").verdict(), (503, Some("endpoint_limit")));
    assert!(world.rejections("endpoint", "requests") >= 3.0);
    assert_eq!(world.gapless.metric("gapless_resends_total{pool=\"web\"}"), 0.0);
    world.gate.open(2);
    assert_eq!((text(held), text(other)), ("one".to_owned(), "two".to_owned()));
    world.near.set(Mode::Ok);
    eventually("there is room again", SOON, || world.gapless.get("/").text() == "near");
    world.assert_not_blamed();
}

#[test]
fn a_pool_with_all_the_requests_it_may_have_refuses_at_once() {
    let world = World::new("limits = { pool = { requests = 1 } }");
    let held = world.hold("one");
    assert_eq!(world.gapless.get("/").verdict(), (503, Some("pool_limit")));
    assert_eq!(world.rejections("pool", "requests"), 1.0);
    world.gate.open(1);
    assert_eq!(text(held), "one");
    world.near.set(Mode::Ok);
    eventually("there is room again", SOON, || world.gapless.get("/").status == 200);
    world.assert_not_blamed();
}

/// A body that is still passed on is a request in flight.
#[test]
fn a_streamed_answer_takes_its_room_to_its_end() {
    let world = World::new("limits = { pool = { requests = 1 } }");
    let gate = world.gate.clone();
    world.near.set(Mode::script(move |_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 100001\r\n\r\n1")?;
        gate.pass();
        wire.send("x".repeat(100_000)).map(|()| Next::Keep)
    }));
    let mut streamed = world.hold("one");
    assert!(streamed.wire.head().expect("a head").is_some());
    assert_eq!(world.gapless.get("/").verdict(), (503, Some("pool_limit")));
    drop(streamed);
    world.near.set(Mode::Ok);
    eventually("there is room again", SOON, || world.gapless.get("/").status == 200);
    world.gate.open(1);
}

#[test]
fn who_finds_no_connection_free_waits_its_turn() {
    let world = World::alone("limits = { endpoint = { connections = 1, pending = 2 } }");
    let held = world.hold("one");
    let (second, third) = (world.wait("two", 2), world.wait("three", 3));
    assert_eq!(world.gapless.get("/").verdict(), (503, Some("pending_limit")));
    assert_eq!(world.rejections("endpoint", "pending"), 1.0);
    assert_eq!(world.near.seen().len(), 1);
    world.gate.open(1);
    assert_eq!(text(held), "one");
    eventually("the next one has its turn", SOON, || world.near.count("two") == 1);
    assert_eq!(world.near.count("three"), 0);
    world.gate.open(2);
    assert_eq!((text(second), text(third)), ("two".to_owned(), "three".to_owned()));
    assert_eq!(world.near.connections(), 1);
    world.assert_not_blamed();
}

#[test]
fn the_end_of_a_connection_makes_room_for_another() {
    let world = World::alone("limits = { endpoint = { connections = 1 } }");
    let gate = world.gate.clone();
    world.near.set(Mode::script(move |_, wire| {
        gate.pass();
        wire.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx")
            .map(|()| Next::Close)
    }));
    let held = world.hold("one");
    let waiting = world.wait("two", 2);
    world.gate.open(2);
    assert_eq!((text(held), text(waiting)), ("x".to_owned(), "x".to_owned()));
    assert_eq!(world.near.connections(), 2);
}

#[test]
fn nobody_waits_where_nobody_may_or_for_longer_than_for_a_connection() {
    let world = World::alone("limits = { endpoint = { connections = 1, pending = 0 } }");
    let _held = world.hold("one");
    assert_eq!(world.gapless.get("/").verdict(), (503, Some("pending_limit")));
    world.gate.open(1);
    let config = Config::new().route("timeouts = { connect = \"200ms\" }");
    let world = World::with("limits = { endpoint = { connections = 1 } }", config, false);
    let held = world.hold("one");
    let started = Instant::now();
    assert_eq!(world.gapless.get("/").verdict(), (503, Some("endpoint_limit")));
    assert!(started.elapsed() >= Duration::from_millis(200));
    world.gate.open(1);
    assert_eq!(text(held), "one");
    world.assert_not_blamed();
}

#[test]
fn where_another_endpoint_has_a_connection_free_nobody_waits() {
    let world = World::new("limits = { endpoint = { connections = 1 } }");
    let held = world.hold("one");
    assert_eq!(world.gapless.get("/").text(), "far");
    assert_eq!(world.rejections("endpoint", "connections"), 1.0);
    world.gate.open(1);
    assert_eq!(text(held), "one");
}

/// The connection to a suspect takes all the room there is: it is better than none.
#[test]
fn an_idle_connection_elsewhere_is_used_where_none_may_be_opened() {
    let world = World::new("limits = { pool = { connections = 1 } }");
    world.near.set(Mode::Ok);
    assert_eq!(world.gapless.get("/").text(), "near");
    world.near.set_probe(Mode::Status(503));
    eventually("the near one is suspect", SOON, || world.status()["state"] == "suspect");
    assert_eq!(world.gapless.get("/").text(), "near");
    assert_eq!(world.rejections("pool", "connections"), 1.0);
}

/// An idle connection of one worker gives way to a request that waits at another.
#[test]
fn workers_share_the_room_for_connections() {
    let config = Config::default()
        .keys("workers = 2")
        .tables("[headers]\nexpose = true")
        .route("timeouts = { connect = \"5s\" }");
    let world = World::with("limits = { endpoint = { connections = 1 } }", config, false);
    world.near.set(Mode::Ok);
    for _ in 0..12 {
        assert_eq!(world.gapless.get("/").verdict(), (200, None));
    }
}

#[test]
fn resends_over_the_limit_are_not_made() {
    for (scope, limits) in [
        ("pool", "limits = { pool = { retries = 0 } }"),
        ("endpoint", "limits = { endpoint = { retries = 0 } }"),
    ] {
        let world = World::new(limits);
        world.near.set(Mode::Status(503));
        let answer = world.gapless.get("/");
        assert_eq!((answer.status, answer.text()), (503, "near".to_owned()), "it is passed on");
        assert_eq!(world.rejections(scope, "retries"), 1.0);
        let world = World::new(limits);
        world.near.set(Mode::Reset);
        assert_eq!(world.gapless.get("/").verdict(), (502, Some("reset")));
        assert_eq!(world.far.seen().len(), 0);
    }
}

#[test]
fn resends_in_flight_are_what_is_limited() {
    let world = World::new("limits = { pool = { retries = 1 } }");
    world.near.set(Mode::Status(503));
    world.far.set(world.gate.mode());
    let held = world.send("one");
    eventually("it is held elsewhere", SOON, || world.far.count("one") == 1);
    assert_eq!(world.gapless.get("/").status, 503);
    world.gate.open(1);
    assert_eq!(text(held), "one");
    world.far.set(Mode::Ok);
    eventually("there is room again", SOON, || world.gapless.get("/").status == 200);
}
