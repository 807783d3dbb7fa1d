//! A zone is evacuated under load, and restored: no client notices.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{World, orders, wait_standing};
use crate::support::client::Client;
use crate::support::endpoint::{Endpoint, Mode, Next};
use crate::support::instance::Gapless;
use crate::support::load::Load;
use crate::support::{SOON, eventually};

const ASK: &str = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-key: k\r\nsec-websocket-version: 13\r\n\r\n";

const GRANT: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                     upgrade: websocket\r\nsec-websocket-accept: v\r\n\r\n";

/// A tunnel that sends back what it gets; a stream that never ends; anything else after a moment.
fn serve(name: &'static str) -> Mode {
    Mode::script(move |head, wire| {
        if head.field("upgrade").is_some() {
            wire.send(GRANT)?;
            loop {
                let byte = wire.exactly(1)?;
                wire.send(byte)?;
            }
        }
        if head.word(1) == "/stream" {
            wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n")?;
            wire.exactly(1)?;
            return Ok(Next::Close);
        }
        wire.body(head)?;
        std::thread::sleep(Duration::from_millis(3));
        let length = name.len();
        wire.send(format!(
            "HTTP/1.1 200 OK\r\nx-endpoint: {name}\r\ncontent-length: {length}\r\n\r\n{name}"
        ))?;
        Ok(Next::Keep)
    })
}

/// POSTs one after the other; gives what went wrong, and how many there were.
fn posts(address: SocketAddr, stop: &Arc<AtomicBool>) -> JoinHandle<(u64, Vec<String>)> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let (mut sent, mut failures) = (0, Vec::new());
        let mut client = Client::open(address);
        while !stop.load(SeqCst) {
            sent += 1;
            match client.exchange("POST", "/", &[], b"once") {
                Ok(answer) if answer.status == 200 => {}
                Ok(answer) => failures.push(format!("{:?}", answer.verdict())),
                Err(error) => {
                    failures.push(error.to_string());
                    client = Client::open(address);
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        (sent, failures)
    })
}

fn tunnel(gapless: &Gapless) -> Client {
    let mut client = Client::open(gapless.address);
    client.send(ASK).expect("sent");
    assert_eq!(client.wire.head().expect("an answer").expect("a head").word(1), "101");
    client
}

fn echoes(client: &mut Client) -> bool {
    client.send("x").is_ok() && client.wire.exactly(1).is_ok_and(|byte| byte == b"x")
}

#[test]
fn a_zone_is_evacuated_under_load_and_restored_without_a_failure() {
    let world = World::new();
    for (endpoint, name) in world.near.iter().zip(["near0", "near1"]) {
        endpoint.set(serve(name));
    }
    for (endpoint, name) in world.far.iter().zip(["far0", "far1"]) {
        endpoint.set(serve(name));
    }
    let gapless = Gapless::start_ready(&world.config().route("upgrade = [\"websocket\"]"));
    let mut tunnels: Vec<Client> = (0..3).map(|_| tunnel(&gapless)).collect();
    let load = Load::start(gapless.address, 4, Duration::from_millis(2));
    let stop = Arc::new(AtomicBool::new(false));
    let posts: Vec<_> = (0..2).map(|_| posts(gapless.address, &stop)).collect();
    eventually("load", SOON, || load.sent() > 200);

    let began = Instant::now();
    let said = orders(&gapless, &["evacuate", "here/a", "--over", "2s", "--deadline", "4s"]);
    assert!(said.contains("drain here/a") && said.contains("by api"), "{said}");
    wait_standing(&gapless, &world.near[0], "drained");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1_900), "{took:?}");
    // What was on its way when the last share went is there.
    eventually("it rests", SOON, || {
        gapless.api("/api/v1/status")["pools"][0]["zones"][0]["in_flight"] == 3
    });
    assert!(tunnels.iter_mut().all(echoes), "what lasts may stay");
    let (seen, sent) = (world.seen_near(), load.sent());
    eventually("load", SOON, || load.sent() > sent + 200);
    assert_eq!(world.seen_near(), seen, "no new request goes there");
    eventually("idle connections are closed", SOON, || {
        world.near.iter().map(|one| one.open()).sum::<usize>() <= 3
    });
    for client in &mut tunnels {
        assert!(client.is_ended(), "until the deadline");
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(5_900) && took < Duration::from_secs(15), "{took:?}");

    orders(&gapless, &["restore", "here/a"]);
    eventually("it is back", SOON, || world.seen_near() > seen + 200);
    stop.store(true, SeqCst);
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
    let met = |endpoint: &Endpoint| tally.by_endpoint.contains_key(&endpoint.address().to_string());
    assert!(met(&world.near[0]) && met(&world.far[0]), "{tally:?}");
    for client in posts {
        let (sent, failures) = client.join().expect("a client");
        assert!(sent > 100 && failures.is_empty(), "{sent} sent: {failures:?}");
    }
    assert!(gapless.incidents("endpoints").is_empty(), "no failure");
    assert_eq!(gapless.metric("gapless_pool_panic{pool=\"web\"}"), 0.0);
}

#[test]
fn at_the_deadline_streams_end_and_what_waits_is_sent_again() {
    let world = World::new();
    let gapless = Gapless::start_ready(&world.config());
    for endpoint in &world.near {
        endpoint.set(serve("near"));
    }
    let mut stream = Client::open(gapless.address);
    stream.send("GET /stream HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    let head = stream.wire.head().expect("an answer").expect("a head");
    assert_eq!(head.word(1), "200");
    assert_eq!(stream.wire.chunk().expect("a chunk"), Some(b"hi".to_vec()));
    for endpoint in &world.near {
        endpoint.set(Mode::Hang);
    }
    let mut waiting = Client::open(gapless.address);
    let seen = world.seen_near();
    // A GET would be hedged, were there not a body.
    waiting.send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx").expect("sent");
    eventually("it waits", SOON, || world.seen_near() > seen);
    for index in 0..2 {
        orders(&gapless, &["drain", &world.near(index), "--deadline", "1s", "--force"]);
    }
    let answer = waiting.answer("PUT").expect("an answer");
    assert_eq!((answer.status, answer.text().starts_with("far")), (200, true));
    assert!(stream.wire.chunk().is_err(), "cut, and not ended");
    let tries = answer.field("x-gapless-attempts");
    assert_eq!(tries, Some("2"));
}

#[test]
fn a_drained_endpoint_may_be_stopped_and_nobody_hears_of_it() {
    let world = World::new();
    let gapless = Gapless::start_ready(&world.config());
    orders(&gapless, &["drain", &world.near(0), "--note", "a new kernel"]);
    let load = Load::start(gapless.address, 2, Duration::from_millis(1));
    world.near[0].die();
    eventually("it is known to be down", SOON, || gapless.state(world.near[0].address()) == "down");
    assert_eq!(gapless.pool()["down"], 0, "but nobody counts it");
    let why = gapless.ask(&format!("/api/v1/explain?of={}&format=text", world.near(0))).text();
    assert!(why.contains("DRAINED by order 1 (api)") && why.contains("a new kernel"), "{why}");
    orders(&gapless, &["restore", &world.near(0)]);
    let sent = load.sent();
    eventually("load", SOON, || load.sent() > sent + 100);
    world.near[0].listen();
    eventually("it is up again", SOON, || gapless.state(world.near[0].address()) == "up");
    let seen = world.near[0].seen().len();
    eventually("it serves", SOON, || world.near[0].seen().len() > seen + 10);
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
    assert!(gapless.incidents("endpoints").is_empty());
}

#[test]
fn a_weight_moves_traffic() {
    let world = World::new();
    let gapless = Gapless::start_ready(&world.config());
    orders(&gapless, &["weight", &world.near(0), "9"]);
    let load = Load::start(gapless.address, 1, Duration::ZERO);
    eventually("load", SOON, || load.sent() > 1_000);
    let tally = load.stop();
    let of = |endpoint: &Endpoint| {
        tally.by_endpoint.get(&endpoint.address().to_string()).copied().unwrap_or_default()
    };
    assert!(of(&world.near[0]) > 4 * of(&world.near[1]), "{tally:?}");
    assert_eq!(of(&world.far[0]), 0);
}
