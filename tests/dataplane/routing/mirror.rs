//! Copies of requests.

use std::sync::{Mutex, mpsc};

use super::{Client, World};
use crate::support::endpoint::{Mode, Next};
use crate::support::{SOON, eventually};

const MIRROR: &str =
    "mirror = { pool = \"shadow\" }\nrequest_headers = { set = { x-env = \"live\" } }";

#[test]
fn copies_are_sent_whole_and_their_answers_dropped() {
    let world = World::new(&["shadow"], "", MIRROR);
    world.other().set(Mode::Status(500));
    let mut client = Client::open(world.gapless.address);
    for id in ["a", "b", "c"] {
        let body = format!("body of {id}");
        let answer = client.exchange("POST", "/x?y", &[("x-id", id)], body.as_bytes());
        assert_eq!(answer.expect("an answer").text(), "web");
    }
    eventually("the copies have come", SOON, || world.other().seen().len() == 3);
    for seen in world.other().seen() {
        let id = seen.head.field("x-id").expect("an id").to_owned();
        assert_eq!(seen.head.start, "POST /x?y HTTP/1.1");
        assert_eq!(String::from_utf8_lossy(&seen.body), format!("body of {id}"));
        assert_eq!(seen.head.field("x-env"), Some("live"), "as it went to the endpoint");
    }
    assert_eq!(world.web().seen().len(), 3, "nobody else has more of them");
    assert_eq!(world.gapless.metric("gapless_mirrored_total{pool=\"shadow\"}"), 3.0);
    // What the shadow met is its own: the endpoint that serves is blamed for nothing.
    let web = world.gapless.endpoint(world.web().address());
    assert_eq!(web["traffic"]["errors"], 0);
    eventually("the shadow's errors are counted", SOON, || {
        let shadow = world.gapless.endpoint(world.other().address());
        shadow["traffic"]["errors"] == 3 && shadow["traffic"]["failed"] == 0
    });
}

#[test]
fn a_silent_shadow_delays_nobody_and_copies_are_bounded() {
    let world = World::new(
        &["shadow"],
        "",
        "mirror = { pool = \"shadow\" }\ntimeouts = { response = \"60s\" }",
    );
    world.other().set(Mode::Hang);
    let mut client = Client::open(world.gapless.address);
    for _ in 0..200 {
        assert_eq!(client.get("/").text(), "web");
    }
    let metric = |name: &str| world.gapless.metric(&format!("{name}{{pool=\"shadow\"}}"));
    assert_eq!(metric("gapless_mirrored_total") + metric("gapless_mirrors_dropped_total"), 200.0);
    assert!(metric("gapless_mirrors_dropped_total") >= 136.0, "64 at most wait at once");
}

#[test]
fn a_body_that_is_not_held_is_not_copied() {
    let route = "mirror = { pool = \"shadow\" }\nretry = { attempts = 1, buffer = \"1KiB\" }";
    let world = World::new(&["shadow"], "", route);
    let mut client = Client::open(world.gapless.address);
    let large = client.exchange("POST", "/", &[("x-id", "large")], &[b'x'; 4_096]);
    assert_eq!(large.expect("an answer").text(), "web");
    let small = client.exchange("POST", "/", &[("x-id", "small")], &[b'x'; 1_000]);
    assert_eq!(small.expect("an answer").text(), "web");
    eventually("the small one is copied", SOON, || world.other().count("small") == 1);
    assert_eq!(world.other().count("large"), 0);
    assert_eq!(world.gapless.metric("gapless_mirrors_dropped_total{pool=\"shadow\"}"), 1.0);
}

#[test]
fn an_answer_before_the_whole_body_is_no_reason_to_wait_for_it() {
    let world = World::new(&["shadow"], "", "mirror = { pool = \"shadow\" }");
    world.web().set(Mode::script(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly")?;
        wire.rest().map(|_| Next::Close)
    }));
    let mut client = Client::open(world.gapless.address);
    client.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nhalf!").expect("sent");
    assert_eq!(client.answer("POST").expect("an answer").text(), "early");
    assert_eq!(world.gapless.metric("gapless_mirrors_dropped_total{pool=\"shadow\"}"), 1.0);
}

#[test]
fn so_many_of_a_hundred() {
    let world = World::new(&["shadow"], "", "mirror = { pool = \"shadow\", percent = 20 }");
    let mut client = Client::open(world.gapless.address);
    for _ in 0..500 {
        client.get("/");
    }
    let copies = world.gapless.metric("gapless_mirrored_total{pool=\"shadow\"}");
    assert!((50.0..150.0).contains(&copies), "{copies} of 500, with 20 in 100");
}

/// Nor is what its endpoint says before its answer: the client is in the middle of another one.
#[test]
fn interim_answers_to_a_copy_reach_nobody() {
    let world = World::new(&["shadow"], "", "mirror = { pool = \"shadow\" }");
    let hint = "HTTP/1.1 103 Early Hints\r\nlink: </secret>\r\n\r\n";
    let failed = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
    world.other().set(Mode::Raw(format!("{hint}{failed}").into_bytes()));
    let (go_on, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    world.web().set(Mode::script(move |_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf")?;
        let _ = gate.lock().expect("one at a time").recv();
        wire.send("half")?;
        Ok(Next::Keep)
    }));
    let mut client = Client::open(world.gapless.address);
    for round in 1..=2 {
        client
            .send("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 0\r\n\r\n")
            .expect("sent");
        let head = client.wire.head().expect("read").expect("a head");
        assert_eq!(head.word(1), "200");
        assert_eq!(client.wire.exactly(4).expect("half of it"), b"half");
        eventually("the copy is answered", SOON, || {
            world.gapless.endpoint(world.other().address())["traffic"]["errors"] == round
        });
        go_on.send(()).expect("the endpoint waits");
        assert_eq!(client.wire.exactly(4).expect("the rest"), b"half");
    }
}
