//! What requests say for and against their endpoints, and the answers that are asked for elsewhere.

use std::time::{Duration, Instant};

use crate::support::client::{Answer, Client};
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode, Next};
use crate::support::instance::Gapless;
use crate::support::{SOON, eventually};

/// Whatever becomes evidence, the verdict stays out of it.
const PATIENT: &str = "detect = { down_after = 1000 }";

/// An endpoint that is preferred, and one behind it.
struct World {
    near: Endpoint,
    far: Endpoint,
    gapless: Gapless,
}

/// What an endpoint is known for: answered, errors, failed, rescued.
type Counts = (u64, u64, u64, u64);

impl World {
    fn new() -> Self {
        Self::with(Config::new())
    }

    fn with(config: Config) -> Self {
        let (near, far) = (Endpoint::start("near"), Endpoint::start("far"));
        let config = config
            .pool(PATIENT)
            .zone("here/near", &[near.address()])
            .zone("here/far", &[far.address()]);
        let gapless = Gapless::start_ready(&config);
        Self { near, far, gapless }
    }

    #[track_caller]
    fn ask(&self, method: &str, body: &[u8]) -> Answer {
        let mut client = Client::open(self.gapless.address);
        client.exchange(method, "/", &[], body).expect("an answer")
    }

    #[track_caller]
    fn counts(&self, endpoint: &Endpoint) -> Counts {
        let status = self.gapless.endpoint(endpoint.address());
        let count = |key: &str| status["traffic"][key].as_u64().expect("a number");
        (count("answered"), count("errors"), count("failed"), count("rescued"))
    }

    /// The last of an answer may be counted a moment after its client has it.
    #[track_caller]
    fn wait_counts(&self, endpoint: &Endpoint, expected: Counts) {
        let mut last = Counts::default();
        let start = Instant::now();
        while start.elapsed() < SOON {
            last = self.counts(endpoint);
            if last == expected {
                return;
            }
            std::thread::yield_now();
        }
        assert_eq!(last, expected, "answered, errors, failed, rescued");
    }

    fn requests(&self) -> (usize, usize) {
        (self.near.seen().len(), self.far.seen().len())
    }
}

#[test]
fn a_server_error_is_asked_for_elsewhere_if_it_may_be() {
    for status in [500, 502, 503, 504] {
        let world = World::new();
        world.near.set(Mode::Status(status));
        let put = world.ask("PUT", b"whole");
        assert_eq!((put.status, put.text()), (200, "far".to_owned()), "{status}");
        assert_eq!(world.far.seen()[0].body, b"whole");
        world.wait_counts(&world.near, (0, 1, 0, 1));
        world.wait_counts(&world.far, (1, 0, 0, 0));
    }
}

#[test]
fn a_server_error_of_what_may_have_been_executed_is_passed_on() {
    let world = World::new();
    world.near.set(Mode::Status(503));
    let post = world.ask("POST", b"pay 5");
    assert_eq!((post.status, post.text()), (503, "near".to_owned()));
    assert_eq!(world.requests(), (1, 0));
    world.wait_counts(&world.near, (0, 1, 1, 0));
}

/// One failed request is no verdict, but reason enough to send nothing there that cannot be sent
/// again.
#[test]
fn what_must_not_run_twice_avoids_an_endpoint_that_is_doubted() {
    let world = World::new();
    world.near.set(Mode::Status(503));
    assert_eq!(world.ask("GET", b"").text(), "far");
    eventually("it is doubted", SOON, || world.gapless.state(world.near.address()) == "suspect");
    for _ in 0..10 {
        let post = world.ask("POST", b"pay 5");
        assert_eq!((post.status, post.text()), (200, "far".to_owned()));
    }
    assert_eq!(world.near.seen().len(), 1);
}

/// Probes pass all the time: requests alone put it down, and bring it back.
#[test]
fn who_is_down_for_its_answers_is_tried_again_at_nobodys_cost() {
    let world = World::new();
    let state = || world.gapless.state(world.near.address());
    let get = |until: &dyn Fn() -> bool, what: &str| {
        eventually(what, SOON, || {
            assert_eq!(world.ask("GET", b"").status, 200);
            until()
        });
    };
    world.near.set(Mode::Status(503));
    get(&|| state() == "down", "a verdict");
    let before = world.near.seen().len();
    get(&|| world.near.seen().len() > before + 1, "trials that fail");
    assert_eq!(state(), "down");
    world.near.set(Mode::Ok);
    get(&|| state() == "up", "trials that go well bring it back");
    assert_eq!(world.counts(&world.near).2, 0, "no client saw a failure");
}

#[test]
fn the_connection_of_an_unwanted_answer_is_kept() {
    let world = World::new();
    world.near.set(Mode::script(|head, wire| {
        let status = if head.field("x-id").is_some() { "503 Busy" } else { "200 OK" };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 10\r\n\r\nsome words");
        wire.send(answer).map(|()| Next::Keep)
    }));
    let mut client = Client::open(world.gapless.address);
    let unwanted = client.exchange("GET", "/", &[("x-id", "bad")], b"").expect("an answer");
    assert_eq!(unwanted.text(), "far");
    assert_eq!(client.get("/").text(), "some words");
    assert_eq!(world.near.connections(), 1);
}

#[test]
fn where_all_answer_badly_the_last_answer_is_passed_on() {
    let world = World::new();
    world.near.set(Mode::Status(500));
    world.far.set(Mode::Status(503));
    let answer = world.ask("GET", b"");
    assert_eq!((answer.status, answer.text()), (503, "far".to_owned()));
    assert_eq!(answer.field("x-gapless-reason"), None, "it is no answer of the proxy's own");
    assert_eq!(answer.field("x-gapless-attempts"), Some("2"));
    world.wait_counts(&world.near, (0, 1, 0, 0));
    world.wait_counts(&world.far, (0, 1, 1, 0));
}

#[test]
fn which_statuses_are_asked_for_elsewhere_is_configured() {
    for (statuses, asked, elsewhere) in
        [("none", 503, false), ("", 500, false), ("507", 503, false), ("507", 507, true)]
    {
        let world =
            World::with(Config::new().route(&format!("retry = {{ statuses = \"{statuses}\" }}")));
        world.near.set(Mode::Status(asked));
        let status = world.ask("GET", b"").status;
        assert_eq!(status == 200, elsewhere, "{asked} with \"{statuses}\"");
        world.wait_counts(&world.near, (0, 1, 0, u64::from(elsewhere)));
    }
}

#[test]
fn what_speaks_of_the_request_is_passed_on_and_counts_nothing() {
    let world = World::new();
    for status in [501, 505] {
        world.near.set(Mode::Status(status));
        assert_eq!(world.ask("GET", b"").status, status);
    }
    world.near.set(Mode::Status(404));
    assert_eq!(world.ask("GET", b"").status, 404);
    world.wait_counts(&world.near, (1, 0, 0, 0));
    assert_eq!(world.requests(), (3, 0));
}

#[test]
fn a_small_answer_that_is_cut_is_counted_where_it_was_cut_and_asked_for_elsewhere() {
    let world = World::new();
    world.near.set(Mode::truncated());
    assert_eq!(world.ask("GET", b"").text(), "far");
    world.wait_counts(&world.near, (0, 1, 0, 1));
    world.wait_counts(&world.far, (1, 0, 0, 0));
}

#[test]
fn a_streamed_answer_counts_when_it_has_passed_or_was_cut() {
    let world = World::new();
    let whole = "x".repeat(200_000);
    world.near.set(Mode::Body(whole.clone()));
    assert_eq!(world.ask("GET", b"").text(), whole);
    world.wait_counts(&world.near, (1, 0, 0, 0));
    let chunk = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nword\r\n";
    world.near.set(Mode::Raw(format!("{chunk}0\r\n\r\n").into_bytes()));
    assert_eq!(world.ask("GET", b"").text(), "word");
    world.wait_counts(&world.near, (2, 0, 0, 0));
    for cut in [chunk.to_owned(), format!("{chunk}zz\r\n")] {
        let world = World::new();
        world.near.set(Mode::RawClose(cut.into_bytes()));
        let mut client = Client::open(world.gapless.address);
        let answer = client.exchange("GET", "/", &[], b"");
        assert!(answer.is_err(), "{answer:?}");
        world.wait_counts(&world.near, (0, 1, 1, 0));
    }
}

#[test]
fn a_wait_beyond_the_slow_bound_counts_once_and_its_answer_neither_way() {
    for (hedge, who, rescued) in [(false, "near", 0), (true, "far", 1)] {
        let config = Config::new()
            .route(&format!("retry = {{ hedge = {hedge} }}"))
            .pool("stall = { floor = \"20ms\", ceiling = \"60ms\" }");
        let world = World::with(config);
        world.near.set(Mode::Slow(Duration::from_millis(400)));
        let answer = world.ask("GET", b"");
        assert_eq!((answer.status, answer.text()), (200, who.to_owned()));
        world.wait_counts(&world.near, (0, 1, 0, rescued));
    }
}

#[test]
fn what_the_client_breaks_off_counts_nothing() {
    let world = World::new();
    let in_flight = |expected: u64| {
        eventually("requests in flight", SOON, || {
            world.gapless.endpoint(world.near.address())["in_flight"] == expected
        });
    };
    let ask = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    // Before there is an answer, and in the middle of one.
    let parts = ["", "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nfirst"];
    for part in parts {
        world.near.set(Mode::script(move |_, wire| {
            wire.send(part)?;
            wire.rest().map(|_| Next::Close)
        }));
        let mut client = Client::open(world.gapless.address);
        client.send(ask).expect("sent");
        in_flight(1);
        if !part.is_empty() {
            assert!(client.wire.head().expect("a head").is_some());
        }
        drop(client);
        in_flight(0);
    }
    // In the middle of what it sends.
    let mut client = Client::open(world.gapless.address);
    client.send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf!").expect("sent");
    in_flight(1);
    drop(client);
    in_flight(0);
    world.wait_counts(&world.near, (0, 0, 0, 0));
    assert_eq!(world.gapless.state(world.near.address()), "up");
}

#[test]
fn a_lost_connection_counts_once() {
    for mode in [Mode::Reset, Mode::Close, Mode::malformed()] {
        let world = World::new();
        world.near.set(mode);
        assert_eq!(world.ask("GET", b"").text(), "far");
        world.wait_counts(&world.near, (0, 1, 0, 1));
    }
}
