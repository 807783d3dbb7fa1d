//! Forwarded heads.

use super::{start_pair, start_pair_with};
use crate::support::client::{self, TestClient};
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::ResponseMode;

#[test]
fn method_target_and_fields_are_forwarded_unchanged() {
    let (endpoint, gapless) = start_pair();
    let fields = [("accept", "a"), ("Accept", "b"), ("x-empty", ""), ("cookie", "k=v; l=w")];
    for method in ["GET", "DELETE", "OPTIONS", "PATCH", "PURGE"] {
        let target = "/a/b%20c/?q=1&r=%2f#";
        let target = target.trim_end_matches('#');
        let mut client = TestClient::open(gapless.address);
        assert_eq!(client.exchange(method, target, &fields, b"").expect("answered").status, 200);
        let seen = endpoint.requests().pop().expect("a request");
        assert_eq!(seen.head.start_line, format!("{method} {target} HTTP/1.1"));
        assert_eq!(seen.head.field_values("accept").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(seen.head.field("x-empty"), Some(""));
        assert_eq!(seen.head.field("cookie"), Some("k=v; l=w"));
        assert_eq!(seen.head.field("host"), Some("test.example"));
    }
}

#[test]
fn request_without_content_says_so_where_its_method_has_some() {
    let (endpoint, gapless) = start_pair();
    for (method, length) in [
        ("POST", Some("0")),
        ("PUT", Some("0")),
        ("PATCH", Some("0")),
        ("GET", None),
        ("HEAD", None),
        ("DELETE", None),
    ] {
        let mut client = TestClient::open(gapless.address);
        client.send(format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n")).expect("sent");
        assert_eq!(client.read_response(method).expect("answered").status, 200);
        let seen = endpoint.requests().pop().expect("a request");
        assert_eq!(seen.head.field("content-length"), length, "{method}");
    }
}

#[test]
fn forwarded_fields_from_clients_are_replaced() {
    let (endpoint, gapless) = start_pair();
    let fields = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("forwarded", "for=6.6.6.6"),
        ("via", "1.0 before"),
    ];
    let mut client = TestClient::open(gapless.address);
    let answer = client.exchange("GET", "/", &fields, b"").expect("answered");
    assert_eq!(answer.field("via"), Some("1.1 gapless"));
    let head = endpoint.requests().pop().expect("a request").head;
    assert_eq!(head.field_values("x-forwarded-for").collect::<Vec<_>>(), ["127.0.0.1"]);
    assert_eq!(head.field_values("x-forwarded-proto").collect::<Vec<_>>(), ["http"]);
    assert_eq!(head.field_values("x-forwarded-host").collect::<Vec<_>>(), ["test.example"]);
    assert_eq!(head.field("forwarded"), None);
    assert_eq!(head.field_values("via").collect::<Vec<_>>(), ["1.0 before", "1.1 gapless"]);
}

/// Fields by which applications learn about a client, besides those that gapless sets.
const IDENTITY_FIELDS: [(&str, &str); 16] = [
    ("x-forwarded-port", "443"),
    ("x-forwarded-prefix", "/evil"),
    ("x-forwarded-server", "evil"),
    ("x-forwarded-scheme", "https"),
    ("x-forwarded-ssl", "on"),
    ("x-forwarded-protocol", "https"),
    ("x-forwarded-user", "root"),
    ("x-forwarded-uri", "/admin"),
    ("x-forwarded-path", "/admin"),
    ("x-forwarded-method", "DELETE"),
    ("x-forwarded-by", "evil"),
    ("x-forwarded-tls-client-cert", "MII"),
    ("x-real-ip", "6.6.6.6"),
    ("x-original-url", "/admin"),
    ("x-rewrite-url", "/admin"),
    ("x-gapless-endpoint", "evil"),
];

#[test]
fn identity_fields_pass_from_trusted_proxies_only() {
    for (keys, is_passed) in [("", false), ("trusted_proxies = [\"127.0.0.1\"]", true)] {
        let (endpoint, gapless) = start_pair_with(ConfigBuilder::default().keys(keys));
        let mut client = TestClient::open(gapless.address);
        let answer = client.exchange("GET", "/", &IDENTITY_FIELDS, b"").expect("answered");
        assert_eq!(answer.status, 200);
        let head = endpoint.requests().pop().expect("a request").head;
        for (name, value) in IDENTITY_FIELDS {
            assert_eq!(head.field(name), is_passed.then_some(value), "{name}, {keys}");
        }
    }
}

#[test]
fn listed_identity_fields_pass_from_any_peer() {
    let headers = "[headers]\npass = [\"X-Forwarded-Port\", \"x-original-url\"]";
    let (endpoint, gapless) = start_pair_with(ConfigBuilder::default().tables(headers));
    let mut client = TestClient::open(gapless.address);
    let _ = client.exchange("GET", "/", &IDENTITY_FIELDS, b"").expect("answered");
    let head = endpoint.requests().pop().expect("a request").head;
    let passed: Vec<&str> =
        IDENTITY_FIELDS.iter().filter_map(|(name, _)| head.field(name).map(|_| *name)).collect();
    assert_eq!(passed, ["x-forwarded-port", "x-original-url"]);
}

#[test]
fn broken_forwarded_field_hides_no_client() {
    let config = ConfigBuilder::default()
        .keys("trusted_proxies = [\"127.0.0.1\"]")
        .tables("[headers]\nforwarded = \"forwarded\"");
    let (endpoint, gapless) = start_pair_with(config);
    let mut client = TestClient::open(gapless.address);
    for value in ["for=6.6.6.6;x=\", for=192.0.2.1", "for=6.6.6.6;for=192.0.2.1"] {
        let _ = client.exchange("GET", "/", &[("forwarded", value)], b"").expect("answered");
        let head = endpoint.requests().pop().expect("a request").head;
        let written: Vec<&str> = head.field_values("forwarded").collect();
        assert_eq!(written, ["for=127.0.0.1;proto=http;host=\"test.example\""], "{value}");
    }
}

#[test]
fn hop_by_hop_fields_are_stripped() {
    let (endpoint, gapless) = start_pair();
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
    endpoint.set_mode(ResponseMode::Raw(answer.into()));
    let mut client = TestClient::open(gapless.address);
    let answer = client.exchange("GET", "/", &hop_by_hop, b"").expect("answered");
    let seen = endpoint.requests().pop().expect("a request").head;
    for name in ["x-mine", "keep-alive", "proxy-connection", "upgrade", "http2-settings", "te"] {
        assert_eq!(seen.field(name), None, "{name} was passed on");
    }
    assert_eq!(seen.field("connection"), None);
    assert_eq!(seen.field("x-yours"), Some("2"));
    assert_eq!(seen.field_values("host").count(), 1, "Host cannot be nominated away");
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(answer.text(), "hi");
    for name in ["x-theirs", "keep-alive", "proxy-connection"] {
        assert_eq!(answer.field(name), None, "{name} was passed back");
    }
    assert_eq!(answer.field("x-ours"), Some("2"));
}

#[test]
fn via_and_exposed_fields_are_configurable() {
    let config = ConfigBuilder::default().keys("workers = 1").tables("[headers]\nvia = \"edge-7\"");
    let (endpoint, gapless) = start_pair_with(config);
    let answer = gapless.get("/");
    assert_eq!(answer.field("via"), Some("1.1 edge-7"));
    assert_eq!(answer.field("x-gapless-endpoint"), None);
    assert_eq!(answer.field("x-gapless-attempts"), None);
    assert_eq!(endpoint.requests()[0].head.field("via"), Some("1.1 edge-7"));
    let (endpoint, gapless) = start_pair();
    let answer = gapless.get("/");
    assert_eq!(answer.field("x-gapless-endpoint"), Some(&*endpoint.address().to_string()));
    assert_eq!(answer.field("x-gapless-attempts"), Some("1"));
}

#[test]
fn response_statuses_and_fields_pass_unchanged() {
    let (endpoint, gapless) = start_pair();
    for status in [200, 201, 301, 404, 418, 500, 503, 599] {
        endpoint.set_mode(ResponseMode::Status(status));
        let answer = gapless.get("/");
        assert_eq!(answer.status_and_reason(), (status, None));
        assert_eq!((answer.field("x-endpoint"), answer.text()), (Some("one"), "one".to_owned()));
    }
}

#[test]
fn bodiless_responses_keep_the_connection_in_sync() {
    let (endpoint, gapless) = start_pair();
    let mut client = TestClient::open(gapless.address);
    let head = client.exchange("HEAD", "/", &[], b"").expect("answered");
    assert_eq!((head.status, head.field("content-length")), (200, Some("3")));
    endpoint.set_mode(ResponseMode::Raw(b"HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n".to_vec()));
    let no_content = client.exchange("GET", "/", &[], b"").expect("answered");
    assert_eq!(
        (no_content.status, no_content.field("x-a"), no_content.field("content-length")),
        (204, Some("1"), None)
    );
    let not_modified = "HTTP/1.1 304 Not Modified\r\netag: \"e\"\r\ncontent-length: 99\r\n\r\n";
    endpoint.set_mode(ResponseMode::Raw(not_modified.into()));
    let not_modified =
        client.exchange("GET", "/", &[("if-none-match", "\"e\"")], b"").expect("answered");
    assert_eq!((not_modified.status, not_modified.field("etag")), (304, Some("\"e\"")));
    endpoint.set_mode(ResponseMode::Ok);
    assert_eq!(client.get("/").text(), "one", "the connection is still in step");
    assert_eq!(endpoint.used_connection_count(), 1, "and so is the one behind");
}

#[test]
fn http10_client_gets_an_unchunked_response() {
    let (endpoint, gapless) = start_pair();
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    endpoint.set_mode(ResponseMode::Raw(chunked.into()));
    let answer = client::send_raw(gapless.address, "GET /old HTTP/1.0\r\n\r\n");
    assert_eq!((answer.status, answer.text()), (200, "hello".to_owned()));
    assert_eq!(answer.field("transfer-encoding"), None, "it knows no chunks");
    let seen = endpoint.requests().pop().expect("a request");
    assert_eq!(seen.head.start_line, "GET /old HTTP/1.1");
    let answer = client::send_raw(gapless.address, "GET / HTTP/1.0\r\nhost: a.example\r\n\r\n");
    assert_eq!(answer.status, 200);
    assert_eq!(endpoint.requests()[1].head.field("host"), Some("a.example"));
}
