//! Requests that wait: for an answer, or for a connection. Verdicts stay out of it.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::World;
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode, Next};
use crate::support::instance::Gapless;
use crate::support::{SOON, eventually};

/// Who has waited for 50 ms has waited for long.
const IMPATIENT: &str = "detect = { interval = \"30s\", timeout = \"200ms\", down_after = 1000 }\n\
                         stall = { floor = \"1ms\", ceiling = \"50ms\" }";

fn world(near: usize, route: &str) -> World {
    World::with(near, 1, Config::new().route(route).pool(IMPATIENT))
}

fn slow() -> Mode {
    Mode::Slow(Duration::from_millis(300))
}

/// Each in a world of its own: who has kept somebody waiting gets no more for a while.
#[test]
fn while_one_endpoint_is_silent_another_answers_and_the_first_is_withdrawn() {
    for method in ["GET", "DELETE"] {
        let world = world(1, "");
        world.set_near(&Mode::Hang);
        let (answer, id) = world.ask(method, b"");
        assert_eq!((answer.status, answer.text()), (200, "far0".to_owned()), "{method}");
        assert_eq!(answer.field("x-gapless-attempts"), Some("2"));
        assert_eq!(world.counts(&id), (1, 1));
        eventually("the silent one is given up on", SOON, || world.near[0].resets() == 1);
        for counter in ["hedges", "rescued"] {
            let name = format!("gapless_{counter}_total{{pool=\"web\"}}");
            assert_eq!(world.gapless.metric(&name), 1.0, "{name}");
        }
    }
}

#[test]
fn the_first_good_answer_wins_whoever_was_asked_first() {
    for mode in [Mode::Hang, Mode::Status(503), Mode::Reset] {
        let world = world(1, "");
        world.set_near(&slow());
        world.far[0].set(mode);
        let (answer, id) = world.ask("GET", b"");
        assert_eq!((answer.status, answer.text()), (200, "near0".to_owned()));
        assert_eq!(world.counts(&id), (1, 1));
    }
}

#[test]
fn a_bad_answer_does_not_win() {
    let world = world(1, "");
    world.far[0].set(Mode::Slow(Duration::from_millis(600)));
    world.set_near(&Mode::script(|_, wire| {
        std::thread::sleep(Duration::from_millis(200));
        wire.send(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Next::Keep)
    }));
    let (answer, id) = world.ask("GET", b"");
    assert_eq!((answer.status, answer.text()), (200, "far0".to_owned()));
    assert_eq!(world.counts(&id), (1, 1));
}

#[test]
fn what_must_not_run_twice_or_has_a_body_is_asked_once_however_long_it_takes() {
    for (method, body) in [("POST", b"".as_slice()), ("POST", b"body"), ("PUT", b"body")] {
        let world = world(1, "");
        world.set_near(&slow());
        let (answer, id) = world.ask(method, body);
        assert_eq!((answer.status, answer.text()), (200, "near0".to_owned()));
        assert_eq!(world.counts(&id), (1, 0), "{method}");
    }
}

#[test]
fn a_route_may_do_without() {
    let world = world(1, "retry = { hedge = false }");
    world.set_near(&slow());
    let (answer, id) = world.ask("GET", b"");
    assert_eq!((answer.status, answer.text()), (200, "near0".to_owned()));
    assert_eq!(world.counts(&id), (1, 0));
}

#[test]
fn hedges_have_the_budget_of_resends() {
    let world = world(1, "retry = { budget_percent = 0, budget_floor = 0 }");
    world.set_near(&slow());
    assert_eq!(world.ask("GET", b"").0.text(), "near0");
    assert_eq!(world.gapless.metric("gapless_hedges_total{pool=\"web\"}"), 0.0);
}

/// A listener whose backlog is full: the kernel drops every SYN, as a firewall would.
struct BlackHole {
    address: SocketAddr,
    _held: Vec<Socket>,
}

impl BlackHole {
    fn dig() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
        listener.listen(0).expect("listening");
        let address = listener.local_addr().expect("bound").as_socket().expect("an IP address");
        let mut held = vec![listener];
        for _ in 0..4 {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            filler.set_nonblocking(true).expect("nonblocking");
            let _ = filler.connect(&address.into());
            held.push(filler);
        }
        Self { address, _held: held }
    }
}

#[test]
fn who_does_not_even_get_a_connection_leaves_whatever_the_method() {
    let (hole, far) = (BlackHole::dig(), Endpoint::start("far"));
    let pool =
        format!("probe = {{ http = \"/healthz\", port = {} }}\n{IMPATIENT}", far.address().port());
    let config = Config::new()
        .route("timeouts = { connect = \"30s\" }")
        .pool(&pool)
        .zone("here/near", &[hole.address])
        .zone("here/far", &[far.address()]);
    let gapless = Gapless::start_ready(&config);
    for method in ["GET", "POST"] {
        let mut client = Client::open(gapless.address);
        let answer = client.exchange(method, "/", &[], b"").expect("an answer");
        assert_eq!((answer.status, answer.text()), (200, "far".to_owned()), "{method}");
    }
    assert_ne!(gapless.state(hole.address), "down", "slowness alone makes no verdict");
}

/// Long before the wait is called stalled, or slow.
#[test]
fn what_must_not_run_twice_passes_by_an_endpoint_that_keeps_others_waiting() {
    let patient = "detect = { interval = \"30s\", timeout = \"3s\", down_interval = \"30s\", down_after = 1000 }";
    let world = World::with(2, 1, Config::new().pool(patient));
    world.near[0].set(Mode::Hang);
    let mut waiting = Vec::new();
    while world.near[0].seen().is_empty() {
        let mut client = Client::open(world.gapless.address);
        client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
        eventually("it is somewhere", SOON, || {
            world.near.iter().map(|one| one.seen().len()).sum::<usize>() > waiting.len()
        });
        waiting.push(client);
    }
    // A third of the stall bound, which is the probes' timeout until latencies are known.
    std::thread::sleep(Duration::from_millis(1_100));
    for _ in 0..30 {
        let (answer, id) = world.ask("POST", b"");
        assert_eq!((answer.status, answer.text()), (200, "near1".to_owned()));
        assert_eq!(world.counts(&id), (1, 0));
    }
    assert_eq!(world.near[0].seen().len(), 1);
}

#[test]
fn all_tries_together_have_a_time_too() {
    for method in ["GET", "POST"] {
        let world = world(1, "timeouts = { total = \"300ms\" }");
        world.set_near(&Mode::Hang);
        world.far[0].set(Mode::Hang);
        let (answer, _) = world.ask(method, b"");
        assert_eq!(answer.verdict(), (504, Some("total_timeout")), "{method}");
        eventually("it is withdrawn", SOON, || world.near[0].resets() == 1);
    }
}

#[test]
fn when_time_is_up_no_other_pool_is_asked() {
    let spare = Endpoint::start("spare");
    let pool = format!(
        "[pool.spare]\n[[pool.spare.zone]]\nname = \"here/spare\"\nendpoints = [\"{}\"]",
        spare.address()
    );
    let route = "fallback = { pool = \"spare\" }\ntimeouts = { total = \"300ms\" }";
    for method in ["GET", "POST"] {
        let config = Config::new().tables(&pool).route(route).pool(IMPATIENT);
        let world = World::with(1, 1, config);
        world.set_near(&Mode::Hang);
        world.far[0].set(Mode::Hang);
        let (answer, id) = world.ask(method, b"");
        assert_eq!(answer.verdict(), (504, Some("total_timeout")), "{method}");
        assert_eq!(spare.count(&id), 0);
    }
}

#[test]
fn a_key_makes_a_post_repeatable_where_the_route_says_so() {
    let key = [("idempotency-key", "k1")];
    let with = world(1, "retry = { idempotency_key = true }");
    with.set_near(&Mode::Reset);
    let (answer, id) = with.ask_with("POST", &key, b"body");
    assert_eq!((answer.status, answer.text()), (200, "far0".to_owned()));
    assert_eq!(with.counts(&id), (1, 1));
    let without = world(1, "");
    without.set_near(&Mode::Reset);
    let (answer, id) = without.ask_with("POST", &key, b"body");
    assert_eq!(answer.verdict(), (502, Some("reset")));
    assert_eq!(without.counts(&id), (1, 0));
}
