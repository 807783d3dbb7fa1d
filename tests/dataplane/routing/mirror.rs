//! Mirrored requests.

use std::sync::{Mutex, mpsc};

use super::{RoutingFixture, TestClient};
use crate::support::endpoint::{ConnectionAction, ResponseMode};
use crate::support::{DEFAULT_TIMEOUT, eventually};

const MIRROR: &str =
    "mirror = { pool = \"shadow\" }\nrequest_headers = { set = { x-env = \"live\" } }";

#[test]
fn mirrored_requests_are_complete_and_responses_dropped() {
    let fixture = RoutingFixture::new(&["shadow"], "", MIRROR);
    fixture.other().set_mode(ResponseMode::Status(500));
    let mut client = TestClient::open(fixture.gapless.address);
    for id in ["a", "b", "c"] {
        let body = format!("body of {id}");
        let answer = client.exchange("POST", "/x?y", &[("x-id", id)], body.as_bytes());
        assert_eq!(answer.expect("an answer").text(), "web");
    }
    eventually("the copies have come", DEFAULT_TIMEOUT, || fixture.other().requests().len() == 3);
    for seen in fixture.other().requests() {
        let id = seen.head.field("x-id").expect("an id").to_owned();
        assert_eq!(seen.head.start_line, "POST /x?y HTTP/1.1");
        assert_eq!(String::from_utf8_lossy(&seen.body), format!("body of {id}"));
        assert_eq!(seen.head.field("x-env"), Some("live"), "as it went to the endpoint");
    }
    assert_eq!(fixture.web().requests().len(), 3, "no request is mirrored twice");
    assert_eq!(fixture.gapless.metric("gapless_mirrored_total{pool=\"shadow\"}"), 3.0);
    // A failure of the mirrored copy gives no evidence against the serving endpoint.
    let web = fixture.gapless.endpoint(fixture.web().address());
    assert_eq!(web["traffic"]["errors"], 0);
    eventually("the shadow's errors are counted", DEFAULT_TIMEOUT, || {
        let shadow = fixture.gapless.endpoint(fixture.other().address());
        shadow["traffic"]["errors"] == 3 && shadow["traffic"]["failed"] == 0
    });
}

#[test]
fn silent_mirror_delays_nothing_and_copies_are_limited() {
    let fixture = RoutingFixture::new(
        &["shadow"],
        "",
        "mirror = { pool = \"shadow\" }\ntimeouts = { response = \"60s\" }",
    );
    fixture.other().set_mode(ResponseMode::Hang);
    let mut client = TestClient::open(fixture.gapless.address);
    for _ in 0..200 {
        assert_eq!(client.get("/").text(), "web");
    }
    let metric = |name: &str| fixture.gapless.metric(&format!("{name}{{pool=\"shadow\"}}"));
    assert_eq!(metric("gapless_mirrored_total") + metric("gapless_mirrors_dropped_total"), 200.0);
    assert!(metric("gapless_mirrors_dropped_total") >= 136.0, "64 at most wait at once");
}

#[test]
fn body_over_the_retry_buffer_is_not_mirrored() {
    let route = "mirror = { pool = \"shadow\" }\nretry = { attempts = 1, buffer = \"1KiB\" }";
    let fixture = RoutingFixture::new(&["shadow"], "", route);
    let mut client = TestClient::open(fixture.gapless.address);
    let large = client.exchange("POST", "/", &[("x-id", "large")], &[b'x'; 4_096]);
    assert_eq!(large.expect("an answer").text(), "web");
    let small = client.exchange("POST", "/", &[("x-id", "small")], &[b'x'; 1_000]);
    assert_eq!(small.expect("an answer").text(), "web");
    eventually("the small one is copied", DEFAULT_TIMEOUT, || {
        fixture.other().count_with_id("small") == 1
    });
    assert_eq!(fixture.other().count_with_id("large"), 0);
    assert_eq!(fixture.gapless.metric("gapless_mirrors_dropped_total{pool=\"shadow\"}"), 1.0);
}

#[test]
fn early_response_does_not_wait_for_the_mirrored_body() {
    let fixture = RoutingFixture::new(&["shadow"], "", "mirror = { pool = \"shadow\" }");
    fixture.web().set_mode(ResponseMode::script(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly")?;
        wire.read_to_end().map(|_| ConnectionAction::Close)
    }));
    let mut client = TestClient::open(fixture.gapless.address);
    client.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nhalf!").expect("sent");
    assert_eq!(client.read_response("POST").expect("an answer").text(), "early");
    assert_eq!(fixture.gapless.metric("gapless_mirrors_dropped_total{pool=\"shadow\"}"), 1.0);
}

#[test]
fn mirror_percent_is_followed() {
    let fixture =
        RoutingFixture::new(&["shadow"], "", "mirror = { pool = \"shadow\", percent = 20 }");
    let mut client = TestClient::open(fixture.gapless.address);
    for _ in 0..500 {
        client.get("/");
    }
    let copies = fixture.gapless.metric("gapless_mirrored_total{pool=\"shadow\"}");
    assert!((50.0..150.0).contains(&copies), "{copies} of 500, with 20 in 100");
}

/// An interim response to the copy does not reach the client, which may read another response.
#[test]
fn interim_responses_of_a_mirror_are_dropped() {
    let fixture = RoutingFixture::new(&["shadow"], "", "mirror = { pool = \"shadow\" }");
    let hint = "HTTP/1.1 103 Early Hints\r\nlink: </secret>\r\n\r\n";
    let failed = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
    fixture.other().set_mode(ResponseMode::Raw(format!("{hint}{failed}").into_bytes()));
    let (proceed, permits) = mpsc::channel::<()>();
    let permits = Mutex::new(permits);
    fixture.web().set_mode(ResponseMode::script(move |_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf")?;
        let _ = permits.lock().expect("one at a time").recv();
        wire.send("half")?;
        Ok(ConnectionAction::Keep)
    }));
    let mut client = TestClient::open(fixture.gapless.address);
    for round in 1..=2 {
        client
            .send("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 0\r\n\r\n")
            .expect("sent");
        let head = client.wire.read_head().expect("read").expect("a head");
        assert_eq!(head.start_line_word(1), "200");
        assert_eq!(client.wire.read_exact(4).expect("half of it"), b"half");
        eventually("the copy is answered", DEFAULT_TIMEOUT, || {
            fixture.gapless.endpoint(fixture.other().address())["traffic"]["errors"] == round
        });
        proceed.send(()).expect("the endpoint waits");
        assert_eq!(client.wire.read_exact(4).expect("the rest"), b"half");
    }
}
