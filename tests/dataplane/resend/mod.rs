//! Sending again: what may be rescued is, and what may have been executed never is.

mod silence;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::support::client::{Answer, Client};
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode, Next};
use crate::support::instance::Gapless;
use crate::support::{SOON, eventually};

/// A zone that is preferred, and one that is left when that fails.
struct World {
    near: Vec<Endpoint>,
    far: Vec<Endpoint>,
    gapless: Gapless,
}

impl World {
    /// One endpoint in each zone; the verdict stays out of it.
    fn new() -> Self {
        Self::with(1, 1, Config::new().pool("detect = { down_after = 1000 }"))
    }

    fn with(near: usize, far: usize, config: Config) -> Self {
        let start = |zone: &str, count: usize| -> Vec<Endpoint> {
            (0..count).map(|index| Endpoint::start(&format!("{zone}{index}"))).collect()
        };
        let (near, far) = (start("near", near), start("far", far));
        let addresses = |all: &[Endpoint]| all.iter().map(Endpoint::address).collect::<Vec<_>>();
        let config = config.zone("here/near", &addresses(&near)).zone("here/far", &addresses(&far));
        let gapless = Gapless::start_ready(&config);
        Self { near, far, gapless }
    }

    fn set_near(&self, mode: &Mode) {
        self.near.iter().for_each(|endpoint| endpoint.set(mode.clone()));
    }

    /// One request with an identity of its own, which is given back.
    #[track_caller]
    fn ask(&self, method: &str, body: &[u8]) -> (Answer, String) {
        self.ask_with(method, &[], body)
    }

    #[track_caller]
    fn ask_with(&self, method: &str, fields: &[(&str, &str)], body: &[u8]) -> (Answer, String) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let id = format!("r{}", NEXT.fetch_add(1, SeqCst));
        let mut client = Client::open(self.gapless.address);
        let fields = [&[("x-id", &*id)], fields].concat();
        let answer = client.exchange(method, "/", &fields, body).expect("an answer");
        (answer, id)
    }

    /// How often the zones got the request.
    fn counts(&self, id: &str) -> (usize, usize) {
        let sum = |all: &[Endpoint]| all.iter().map(|endpoint| endpoint.count(id)).sum();
        (sum(&self.near), sum(&self.far))
    }
}

/// What can happen to a request after it was read and before the client saw any of an answer.
fn failures() -> Vec<(&'static str, Mode)> {
    vec![
        ("reset", Mode::Reset),
        ("closed", Mode::Close),
        ("cut in its body", Mode::truncated()),
        ("cut after its head", Mode::close_after_head()),
        ("cut in its head", Mode::RawClose(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec())),
        ("malformed", Mode::malformed()),
    ]
}

/// Each in a world of its own: one failure is enough to be doubted for.
#[test]
fn what_may_be_sent_twice_is_rescued_in_the_other_zone() {
    for (name, mode) in failures() {
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
            // The answer to a HEAD ends with its head.
            if method == "HEAD" && ["cut in its body", "cut after its head"].contains(&name) {
                continue;
            }
            let world = World::new();
            world.set_near(&mode);
            let body: &[u8] = if method == "PUT" { b"whole" } else { b"" };
            let (answer, id) = world.ask(method, body);
            assert_eq!(answer.status, 200, "{method} {name}");
            assert_eq!(answer.field("x-endpoint"), Some("far0"), "{method} {name}");
            assert_eq!(answer.field("x-gapless-attempts"), Some("2"), "{method} {name}");
            assert_eq!(world.counts(&id), (1, 1), "{method} {name}");
            assert_eq!(world.far[0].seen()[0].body, body, "{method} {name}");
            assert_eq!(world.gapless.metric("gapless_rescued_total{pool=\"web\"}"), 1.0);
        }
    }
}

#[test]
fn what_may_have_been_executed_is_never_sent_twice() {
    for (name, mode) in failures() {
        for (method, body) in [("POST", &b"pay 5"[..]), ("POST", b""), ("PATCH", b"+5")] {
            let world = World::new();
            world.set_near(&mode);
            let mut client = Client::open(world.gapless.address);
            let answer = client.exchange(method, "/", &[("x-id", "one")], body);
            if let Ok(answer) = answer {
                assert_eq!(answer.status, 502, "{method} {name}");
            }
            assert_eq!(world.counts("one"), (1, 0), "{method} {name}");
        }
    }
}

#[test]
fn what_never_left_is_sent_elsewhere_whatever_its_method() {
    let world = World::new();
    world.near[0].die();
    for method in ["POST", "PATCH", "GET", "PUT"] {
        let (answer, id) = world.ask(method, b"body");
        assert_eq!((answer.status, answer.text()), (200, "far0".to_owned()), "{method}");
        assert_eq!(world.counts(&id), (0, 1), "{method}");
    }
    let seen = world.far[0].seen();
    assert!(seen.iter().all(|seen| seen.body == b"body"));
}

/// Without a first pass there is no connection that could be found closed: each POST of the load
/// meets either a good endpoint or one that refuses.
#[test]
fn a_burst_of_posts_into_a_dying_endpoint_is_executed_once_each() {
    let world = World::new();
    let ids: Vec<String> = (0..200).map(|index| format!("p{index}")).collect();
    let mut client = Client::open(world.gapless.address);
    let mut failed = 0;
    for (index, id) in ids.iter().enumerate() {
        if index == 50 {
            world.near[0].die();
        }
        let answer = client.exchange("POST", "/", &[("x-id", id)], b"x").expect("an answer");
        failed += u32::from(answer.status != 200);
        let (near, far) = world.counts(id);
        assert!(near + far <= 1, "{id} was executed {near} + {far} times");
    }
    assert!(failed <= 1, "{failed} POSTs failed; only the one on the cut connection may");
}

#[test]
fn a_request_that_hangs_is_cut_by_the_verdict_and_rescued() {
    let config = Config::new()
        .route("retry = { hedge = false }")
        .pool("detect = { interval = \"1s\", timeout = \"300ms\" }");
    let world = World::with(1, 1, config);
    world.near[0].set_all(Mode::Hang);
    let started = Instant::now();
    let (answer, id) = world.ask("GET", b"");
    assert_eq!((answer.status, answer.text()), (200, "far0".to_owned()));
    assert_eq!(world.counts(&id), (1, 1));
    let waited = started.elapsed();
    assert!(waited < Duration::from_secs(5), "{waited:?}: the response timeout is 30 s");
    assert_eq!(world.gapless.state(world.near[0].address()), "down");
}

#[test]
fn a_post_that_hangs_fails_with_the_verdict_and_is_executed_once() {
    let config = Config::new().pool("detect = { interval = \"1s\", timeout = \"300ms\" }");
    let world = World::with(1, 1, config);
    world.near[0].set_all(Mode::Hang);
    let (answer, id) = world.ask("POST", b"pay 5");
    assert_eq!(answer.verdict(), (502, Some("endpoint_down")));
    assert_eq!(world.counts(&id), (1, 0));
    let (next, _) = world.ask("POST", b"pay 6");
    assert_eq!((next.status, next.text()), (200, "far0".to_owned()));
}

#[test]
fn a_body_that_is_not_held_is_not_sent_again() {
    let world = World::with(1, 1, Config::new().route("retry = { buffer = \"4KiB\" }"));
    world.set_near(&Mode::Reset);
    let (fits, id) = world.ask("PUT", &[b'x'; 4096]);
    assert_eq!((fits.status, world.counts(&id)), (200, (1, 1)));
    assert_eq!(world.far[0].seen()[0].body.len(), 4096);
    let world = World::with(1, 1, Config::new().route("retry = { buffer = \"4KiB\" }"));
    world.set_near(&Mode::Reset);
    let (too_large, id) = world.ask("PUT", &[b'x'; 20_000]);
    assert_eq!(too_large.verdict(), (502, Some("reset")));
    assert_eq!(world.counts(&id), (1, 0));
}

/// Nothing of the body was read from the client yet, so nothing of it can be missing.
#[test]
fn a_large_body_that_never_left_is_sent_elsewhere() {
    let world = World::with(1, 1, Config::new().route("retry = { buffer = \"4KiB\" }"));
    world.near[0].die();
    let body: Vec<u8> = (0..1_000_000u32).map(|at| at as u8).collect();
    let (answer, id) = world.ask("POST", &body);
    assert_eq!((answer.status, world.counts(&id)), (200, (0, 1)));
    assert!(world.far[0].seen()[0].body == body);
}

#[test]
fn a_body_that_is_still_coming_is_sent_again_whole() {
    let world = World::new();
    world.near[0].set(Mode::script(|_, wire| wire.chunk().map(|_| Next::Reset)));
    let mut client = Client::open(world.gapless.address);
    let head = "PUT / HTTP/1.1\r\nhost: a\r\nx-id: slow\r\ntransfer-encoding: chunked\r\n\r\n";
    client.send(format!("{head}5\r\nfirst\r\n")).expect("sent");
    eventually("the first try fails", SOON, || {
        world.gapless.metric("gapless_resends_total{pool=\"web\"}") >= 1.0
    });
    client.send("6\r\nsecond\r\n0\r\n\r\n").expect("sent");
    let answer = client.answer("PUT").expect("an answer");
    assert_eq!((answer.status, world.counts("slow")), (200, (1, 1)));
    assert_eq!(world.far[0].seen()[0].body, b"firstsecond");
}

#[test]
fn attempts_are_bounded() {
    let config = Config::new().route("retry = { attempts = 3 }");
    let world = World::with(3, 3, config);
    for endpoint in world.near.iter().chain(&world.far) {
        endpoint.set(Mode::Reset);
    }
    let (answer, id) = world.ask("GET", b"");
    assert_eq!(answer.verdict(), (502, Some("reset")));
    let (near, far) = world.counts(&id);
    assert_eq!(near + far, 3);
    let once = World::with(1, 1, Config::new().route("retry = { attempts = 1 }"));
    once.set_near(&Mode::Reset);
    let (answer, id) = once.ask("GET", b"");
    assert_eq!((answer.status, once.counts(&id)), (502, (1, 0)));
}

#[test]
fn the_second_try_leaves_the_zone() {
    for _ in 0..8 {
        let world = World::with(4, 1, Config::new());
        world.set_near(&Mode::Reset);
        let (answer, id) = world.ask("GET", b"");
        assert_eq!((answer.status, answer.text()), (200, "far0".to_owned()));
        assert_eq!(world.counts(&id), (1, 1), "no neighbour of the failed one was tried");
    }
}

#[test]
fn resends_have_a_budget() {
    let config = Config::new().route("retry = { budget_percent = 0, budget_floor = 1 }");
    let world = World::with(1, 1, config);
    let asked = 50;
    // All fail together, before there can be a verdict.
    let together = Arc::new(Barrier::new(asked));
    world.near[0].set(Mode::script(move |_, _| {
        together.wait();
        Ok(Next::Reset)
    }));
    let send = |_| {
        let mut client = Client::open(world.gapless.address);
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
        client
    };
    let clients: Vec<Client> = (0..asked).map(send).collect();
    let statuses =
        clients.into_iter().map(|mut client| client.answer("GET").expect("an answer").status);
    let rescued = statuses.filter(|&status| status == 200).count();
    let resends = world.gapless.metric("gapless_resends_total{pool=\"web\"}");
    assert!(rescued > 0, "the floor is there from the start");
    assert!(resends < 35.0, "{resends} of {asked} were sent again");
    assert_eq!(resends, rescued as f64);
}

#[test]
fn an_answer_that_has_begun_is_never_begun_again() {
    let world = World::new();
    let part = "x".repeat(100_000);
    let wire = format!("HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n{part}");
    world.set_near(&Mode::RawClose(wire.into_bytes()));
    let mut client = Client::open(world.gapless.address);
    let cut = client.exchange("GET", "/", &[("x-id", "large")], b"");
    assert!(cut.is_err(), "{cut:?}");
    assert_eq!(world.counts("large"), (1, 0));
}

/// A graceful restart: nothing new is taken, and what is under way is finished.
#[test]
fn an_endpoint_that_listens_no_more_may_finish_what_it_has() {
    let detect = "detect = { interval = \"200ms\", timeout = \"150ms\" }";
    let world = World::with(1, 1, Config::new().pool(detect));
    let near = &world.near[0];
    let (finish, finished) = mpsc::channel::<()>();
    let finished = Mutex::new(finished);
    near.set(Mode::script(move |head, wire| {
        wire.body(head)?;
        if head.word(0) != "POST" {
            return wire.rest().map(|_| Next::Close);
        }
        let _ = finished.lock().expect("one POST at a time").recv_timeout(SOON);
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\npaid").map(|()| Next::Close)
    }));
    let head = "host: a\r\nx-id: one\r\ncontent-length: 1\r\n\r\nx";
    let mut post = Client::open(world.gapless.address);
    post.send(format!("POST / HTTP/1.1\r\n{head}")).expect("sent");
    let mut get = Client::open(world.gapless.address);
    get.send("GET / HTTP/1.1\r\nhost: a\r\nx-id: two\r\n\r\n").expect("sent");
    eventually("both are under way", SOON, || near.seen().len() == 2);
    near.refuse();
    eventually("the verdict", SOON, || world.gapless.state(near.address()) == "down");
    let elsewhere = get.answer("GET").expect("an answer");
    assert_eq!((elsewhere.status, elsewhere.text()), (200, "far0".to_owned()));
    finish.send(()).expect("the endpoint waits");
    let answer = post.answer("POST").expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "paid".to_owned()), "{:?}", answer.verdict());
    assert_eq!((world.counts("one"), world.counts("two")), ((1, 0), (1, 1)));
}
