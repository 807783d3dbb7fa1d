//! The content of spans.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::collector::{
    SpanCollector, attribute, attribute_value, decode_resources, has_kind, hex, is_error,
};
use crate::support::client::{self, TestClient};
use crate::support::endpoint::{ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;
use crate::{otlp_config, start_traced};

#[test]
fn request_spans_follow_semantic_conventions() {
    let (endpoint, gapless, collector) = start_traced("sample = \"100%\"\nservice = \"edge\"");
    let mut client = TestClient::open(gapless.address);
    let fields = [("user-agent", "tests/1"), ("x-forwarded-for", "192.0.2.1")];
    client.exchange("POST", "/a/b?token=secret&x=1", &fields, b"body").expect("answered");
    let (server, attempts) = collector.spans_of_request("/a/b");
    assert!(has_kind(&server, SpanKind::Server) && server.name == "POST */", "{server:#?}");
    for (key, expected) in [
        ("http.request.method", "POST"),
        ("url.path", "/a/b"),
        ("url.query", "token=*&x=*"),
        ("url.scheme", "http"),
        ("server.address", "test.example"),
        ("http.response.status_code", "200"),
        ("http.route", "*/"),
        ("network.protocol.version", "1.1"),
        ("client.address", "127.0.0.1"),
        ("user_agent.original", "tests/1"),
        ("error.type", ""),
        ("gapless.attempts", "1"),
        ("gapless.pool", "web"),
        ("gapless.zone", "here/a"),
        ("gapless.reason", ""),
    ] {
        assert_eq!(attribute(&server, key), expected, "{key}");
    }
    let head = endpoint.requests().pop().expect("a request").head;
    assert_eq!(head.field("x-request-id"), Some(attribute(&server, "gapless.request_id").as_str()));
    let [attempt] = attempts.as_slice() else { panic!("{attempts:#?}") };
    assert!(has_kind(attempt, SpanKind::Client) && attempt.name == "POST", "{attempt:#?}");
    for (key, expected) in [
        ("http.request.method", "POST"),
        ("url.full", "http://test.example/a/b?token=*&x=*"),
        ("server.address", "127.0.0.1"),
        ("server.port", &endpoint.address().port().to_string()),
        ("http.response.status_code", "200"),
        ("http.request.resend_count", ""),
        ("gapless.zone", "here/a"),
        ("gapless.outcome", "200"),
    ] {
        assert_eq!(attribute(attempt, key), expected, "{key}");
    }
    let (from, to) = (server.start_time_unix_nano, server.end_time_unix_nano);
    let (attempt_start, attempt_end) = (attempt.start_time_unix_nano, attempt.end_time_unix_nano);
    assert!(
        from <= attempt_start && attempt_start <= attempt_end && attempt_end <= to,
        "{from} {attempt_start} {attempt_end} {to}"
    );
    let post = &collector.posts()[0];
    assert_eq!(post.head.start_line, "POST /v1/traces HTTP/1.1");
    assert_eq!(post.head.field("content-type"), Some("application/x-protobuf"));
    let resource = decode_resources(&post.body).swap_remove(0).resource.expect("a resource");
    assert_eq!(attribute_value(&resource.attributes, "service.name"), "edge");
    assert_eq!(attribute_value(&resource.attributes, "service.version"), env!("CARGO_PKG_VERSION"));
}

#[test]
fn rescued_request_has_one_span_per_attempt() {
    let (bad, good) = (TestEndpoint::start("bad"), TestEndpoint::start("good"));
    let collector = SpanCollector::start();
    let config = otlp_config(&collector.url(), "sample = \"100%\"")
        .zone("here/a", &[bad.address()])
        .zone("here/b", &[good.address()]);
    let gapless = Gapless::start_ready(&config);
    bad.set_mode(ResponseMode::Reset);
    let answer = client::get(gapless.address, "/rescued");
    assert_eq!((answer.status, answer.text().as_str()), (200, "good"));
    let (server, attempts) = collector.spans_of_request("/rescued");
    assert!(!is_error(&server), "the client saw nothing of it");
    assert_eq!(attribute(&server, "gapless.attempts"), "2");
    assert_eq!((attribute(&server, "gapless.zone").as_str(), attempts.len()), ("here/b", 2));
    let [first, second] = attempts.as_slice() else { panic!("{attempts:#?}") };
    assert!(is_error(first), "{first:#?}");
    let value_of = |span, key| attribute(span, key);
    assert_eq!(
        (value_of(first, "error.type").as_str(), value_of(first, "gapless.zone").as_str()),
        ("reset", "here/a")
    );
    assert_eq!(
        (value_of(first, "gapless.outcome"), value_of(first, "http.response.status_code")),
        ("reset".into(), String::new())
    );
    assert!(!is_error(second) && value_of(second, "gapless.zone") == "here/b", "{second:#?}");
    assert_eq!(value_of(second, "http.request.resend_count"), "1");
    for (endpoint, span) in [(&bad, first), (&good, second)] {
        let head = endpoint.requests().pop().expect("a request").head;
        let parent = head.field("traceparent").expect("a parent");
        assert_eq!(parent[36..52], hex(&span.span_id), "each try is a parent of its own");
    }
}

#[test]
fn failure_is_an_error_of_the_span_that_caused_it() {
    let (endpoint, gapless, collector) = start_traced("sample = \"100%\"");
    endpoint.set_mode(ResponseMode::Status(404));
    client::get(gapless.address, "/missing");
    let (server, attempts) = collector.spans_of_request("/missing");
    assert!(!is_error(&server) && is_error(&attempts[0]), "a 404 is an error of the client span");
    endpoint.set_mode(ResponseMode::Hang);
    let mut client = TestClient::open(gapless.address);
    client.send("GET /abandoned HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    crate::support::eventually("it is there", crate::support::DEFAULT_TIMEOUT, || {
        endpoint.requests().len() == 2
    });
    drop(client);
    let (server, attempts) = collector.spans_of_request("/abandoned");
    assert_eq!(attribute(&server, "gapless.reason"), "client_abort");
    assert_eq!(attribute(&server, "http.response.status_code"), "", "no status was sent");
    assert!(!is_error(&server) && !is_error(&attempts[0]), "an abandoned request is no failure");
    assert_eq!(attribute(&attempts[0], "gapless.outcome"), "left");
    endpoint.kill();
    let answer = client::get(gapless.address, "/failed");
    assert!(answer.status >= 500, "{answer:?}");
    let (server, _) = collector.spans_of_request("/failed");
    assert!(is_error(&server), "{server:#?}");
    let reason = answer.field("x-gapless-reason").expect("a reason");
    assert_eq!(attribute(&server, "error.type"), reason);
}

#[test]
fn rewritten_url_is_shown_in_attempt_span() {
    let (endpoint, collector) = (TestEndpoint::start("one"), SpanCollector::start());
    let config = otlp_config(&collector.url(), "sample = \"100%\"")
        .route("path = \"/old/\"\nrewrite = { prefix = \"/new/\", host = \"inner.example\" }")
        .zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_ready(&config);
    client::get(gapless.address, "/old/x?k=v");
    assert_eq!(endpoint.requests()[0].head.start_line_word(1), "/new/x?k=v");
    let (server, attempts) = collector.spans_of_request("/old/x");
    assert_eq!(attribute(&server, "server.address"), "test.example");
    assert_eq!(attribute(&attempts[0], "url.full"), "http://inner.example/new/x?k=*");
}
