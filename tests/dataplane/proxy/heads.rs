//! Heads on their way through.

use super::{pair, pair_with};
use crate::support::client::{self, Client};
use crate::support::config::Config;
use crate::support::endpoint::Mode;

#[test]
fn method_target_and_fields_arrive_as_they_were_sent() {
    let (endpoint, gapless) = pair();
    let fields = [("accept", "a"), ("Accept", "b"), ("x-empty", ""), ("cookie", "k=v; l=w")];
    for method in ["GET", "DELETE", "OPTIONS", "PATCH", "PURGE"] {
        let target = "/a/b%20c/?q=1&r=%2f#";
        let target = target.trim_end_matches('#');
        let mut client = Client::open(gapless.address);
        assert_eq!(client.exchange(method, target, &fields, b"").expect("answered").status, 200);
        let seen = endpoint.seen().pop().expect("a request");
        assert_eq!(seen.head.start, format!("{method} {target} HTTP/1.1"));
        assert_eq!(seen.head.all("accept").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(seen.head.field("x-empty"), Some(""));
        assert_eq!(seen.head.field("cookie"), Some("k=v; l=w"));
        assert_eq!(seen.head.field("host"), Some("test.example"));
    }
}

#[test]
fn the_proxy_says_for_whom_it_asks_and_cannot_be_lied_to() {
    let (endpoint, gapless) = pair();
    let fields = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("forwarded", "for=6.6.6.6"),
        ("via", "1.0 before"),
    ];
    let mut client = Client::open(gapless.address);
    let answer = client.exchange("GET", "/", &fields, b"").expect("answered");
    assert_eq!(answer.field("via"), Some("1.1 gapless"));
    let head = endpoint.seen().pop().expect("a request").head;
    assert_eq!(head.all("x-forwarded-for").collect::<Vec<_>>(), ["127.0.0.1"]);
    assert_eq!(head.all("x-forwarded-proto").collect::<Vec<_>>(), ["http"]);
    assert_eq!(head.all("x-forwarded-host").collect::<Vec<_>>(), ["test.example"]);
    assert_eq!(head.field("forwarded"), None);
    assert_eq!(head.all("via").collect::<Vec<_>>(), ["1.0 before", "1.1 gapless"]);
}

#[test]
fn what_belongs_to_the_connection_stays_there() {
    let (endpoint, gapless) = pair();
    let hop_by_hop = [
        ("connection", "x-mine, Keep-Alive, x-forwarded-for, host"),
        ("x-mine", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        ("te", "gzip"),
        ("x-yours", "2"),
    ];
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: x-theirs\r\nx-theirs: 1\r\n\
                  keep-alive: timeout=9\r\nproxy-connection: close\r\nx-ours: 2\r\n\r\nhi";
    endpoint.set(Mode::Raw(answer.into()));
    let mut client = Client::open(gapless.address);
    let answer = client.exchange("GET", "/", &hop_by_hop, b"").expect("answered");
    let seen = endpoint.seen().pop().expect("a request").head;
    for name in ["x-mine", "keep-alive", "proxy-connection", "upgrade", "http2-settings", "te"] {
        assert_eq!(seen.field(name), None, "{name} was passed on");
    }
    assert_eq!(seen.field("connection"), None);
    assert_eq!(seen.field("x-yours"), Some("2"));
    assert_eq!(seen.all("host").count(), 1, "Host cannot be nominated away");
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(answer.text(), "hi");
    for name in ["x-theirs", "keep-alive", "proxy-connection"] {
        assert_eq!(answer.field(name), None, "{name} was passed back");
    }
    assert_eq!(answer.field("x-ours"), Some("2"));
}

#[test]
fn fields_of_the_proxy_itself_can_be_chosen() {
    let config = Config::default().keys("workers = 1").tables("[headers]\nvia = \"edge-7\"");
    let (endpoint, gapless) = pair_with(config);
    let answer = gapless.get("/");
    assert_eq!(answer.field("via"), Some("1.1 edge-7"));
    assert_eq!(answer.field("x-gapless-endpoint"), None);
    assert_eq!(answer.field("x-gapless-attempts"), None);
    assert_eq!(endpoint.seen()[0].head.field("via"), Some("1.1 edge-7"));
    let (endpoint, gapless) = pair();
    let answer = gapless.get("/");
    assert_eq!(answer.field("x-gapless-endpoint"), Some(&*endpoint.address().to_string()));
    assert_eq!(answer.field("x-gapless-attempts"), Some("1"));
}

#[test]
fn statuses_pass_through_with_their_fields() {
    let (endpoint, gapless) = pair();
    for status in [200, 201, 301, 404, 418, 500, 503, 599] {
        endpoint.set(Mode::Status(status));
        let answer = gapless.get("/");
        assert_eq!(answer.verdict(), (status, None));
        assert_eq!((answer.field("x-endpoint"), answer.text()), (Some("one"), "one".to_owned()));
    }
}

#[test]
fn answers_without_a_body_have_none() {
    let (endpoint, gapless) = pair();
    let mut client = Client::open(gapless.address);
    let head = client.exchange("HEAD", "/", &[], b"").expect("answered");
    assert_eq!((head.status, head.field("content-length")), (200, Some("3")));
    endpoint.set(Mode::Raw(b"HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n".to_vec()));
    let none = client.exchange("GET", "/", &[], b"").expect("answered");
    assert_eq!(
        (none.status, none.field("x-a"), none.field("content-length")),
        (204, Some("1"), None)
    );
    let same = "HTTP/1.1 304 Not Modified\r\netag: \"e\"\r\ncontent-length: 99\r\n\r\n";
    endpoint.set(Mode::Raw(same.into()));
    let same = client.exchange("GET", "/", &[("if-none-match", "\"e\"")], b"").expect("answered");
    assert_eq!((same.status, same.field("etag")), (304, Some("\"e\"")));
    endpoint.set(Mode::Ok);
    assert_eq!(client.get("/").text(), "one", "the connection is still in step");
    assert_eq!(endpoint.connections(), 1, "and so is the one behind");
}

#[test]
fn a_client_of_http_1_0_is_served_in_its_own_terms() {
    let (endpoint, gapless) = pair();
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    endpoint.set(Mode::Raw(chunked.into()));
    let answer = client::raw(gapless.address, "GET /old HTTP/1.0\r\n\r\n");
    assert_eq!((answer.status, answer.text()), (200, "hello".to_owned()));
    assert_eq!(answer.field("transfer-encoding"), None, "it knows no chunks");
    let seen = endpoint.seen().pop().expect("a request");
    assert_eq!(seen.head.start, "GET /old HTTP/1.1");
    let answer = client::raw(gapless.address, "GET / HTTP/1.0\r\nhost: a.example\r\n\r\n");
    assert_eq!(answer.status, 200);
    assert_eq!(endpoint.seen()[1].head.field("host"), Some("a.example"));
}
