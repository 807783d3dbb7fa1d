//! What spans say.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::collector::{Collector, hex, is, is_error, resources, text, value};
use crate::support::client::{self, Client};
use crate::support::endpoint::{Endpoint, Mode};
use crate::support::instance::Gapless;
use crate::{exporting, traced};

#[test]
fn a_request_is_told_in_the_names_of_the_conventions() {
    let (endpoint, gapless, collector) = traced("sample = \"100%\"\nservice = \"edge\"");
    let mut client = Client::open(gapless.address);
    let fields = [("user-agent", "tests/1"), ("x-forwarded-for", "192.0.2.1")];
    client.exchange("POST", "/a/b?token=secret&x=1", &fields, b"body").expect("answered");
    let (server, tries) = collector.request("/a/b");
    assert!(is(&server, SpanKind::Server) && server.name == "POST */", "{server:#?}");
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
        assert_eq!(text(&server, key), expected, "{key}");
    }
    let head = endpoint.seen().pop().expect("a request").head;
    assert_eq!(head.field("x-request-id"), Some(text(&server, "gapless.request_id").as_str()));
    let [one] = tries.as_slice() else { panic!("{tries:#?}") };
    assert!(is(one, SpanKind::Client) && one.name == "POST", "{one:#?}");
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
        assert_eq!(text(one, key), expected, "{key}");
    }
    let (from, to) = (server.start_time_unix_nano, server.end_time_unix_nano);
    let (began, over) = (one.start_time_unix_nano, one.end_time_unix_nano);
    assert!(from <= began && began <= over && over <= to, "{from} {began} {over} {to}");
    let post = &collector.posts()[0];
    assert_eq!(post.head.start, "POST /v1/traces HTTP/1.1");
    assert_eq!(post.head.field("content-type"), Some("application/x-protobuf"));
    let resource = resources(&post.body).swap_remove(0).resource.expect("a resource");
    assert_eq!(value(&resource.attributes, "service.name"), "edge");
    assert_eq!(value(&resource.attributes, "service.version"), env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_rescue_shows_the_try_that_failed_and_the_one_that_did_not() {
    let (bad, good) = (Endpoint::start("bad"), Endpoint::start("good"));
    let collector = Collector::start();
    let config = exporting(&collector.url(), "sample = \"100%\"")
        .zone("here/a", &[bad.address()])
        .zone("here/b", &[good.address()]);
    let gapless = Gapless::start_ready(&config);
    bad.set(Mode::Reset);
    let answer = client::get(gapless.address, "/rescued");
    assert_eq!((answer.status, answer.text().as_str()), (200, "good"));
    let (server, tries) = collector.request("/rescued");
    assert!(!is_error(&server), "the client saw nothing of it");
    assert_eq!(text(&server, "gapless.attempts"), "2");
    assert_eq!((text(&server, "gapless.zone").as_str(), tries.len()), ("here/b", 2));
    let [first, second] = tries.as_slice() else { panic!("{tries:#?}") };
    assert!(is_error(first), "{first:#?}");
    let of = |span, key| text(span, key);
    assert_eq!(
        (of(first, "error.type").as_str(), of(first, "gapless.zone").as_str()),
        ("reset", "here/a")
    );
    assert_eq!(
        (of(first, "gapless.outcome"), of(first, "http.response.status_code")),
        ("reset".into(), String::new())
    );
    assert!(!is_error(second) && of(second, "gapless.zone") == "here/b", "{second:#?}");
    assert_eq!(of(second, "http.request.resend_count"), "1");
    for (endpoint, span) in [(&bad, first), (&good, second)] {
        let head = endpoint.seen().pop().expect("a request").head;
        let parent = head.field("traceparent").expect("a parent");
        assert_eq!(parent[36..52], hex(&span.span_id), "each try is a parent of its own");
    }
}

#[test]
fn what_goes_wrong_is_an_error_of_whoever_it_is() {
    let (endpoint, gapless, collector) = traced("sample = \"100%\"");
    endpoint.set(Mode::Status(404));
    client::get(gapless.address, "/missing");
    let (server, tries) = collector.request("/missing");
    assert!(!is_error(&server) && is_error(&tries[0]), "a 404 is one for who asked");
    endpoint.set(Mode::Hang);
    let mut client = Client::open(gapless.address);
    client.send("GET /abandoned HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    crate::support::eventually("it is there", crate::support::SOON, || endpoint.seen().len() == 2);
    drop(client);
    let (server, tries) = collector.request("/abandoned");
    assert_eq!(text(&server, "gapless.reason"), "client_abort");
    assert_eq!(text(&server, "http.response.status_code"), "", "nobody saw one");
    assert!(!is_error(&server) && !is_error(&tries[0]), "it is nobody's failure");
    assert_eq!(text(&tries[0], "gapless.outcome"), "left");
    endpoint.die();
    let answer = client::get(gapless.address, "/failed");
    assert!(answer.status >= 500, "{answer:?}");
    let (server, _) = collector.request("/failed");
    assert!(is_error(&server), "{server:#?}");
    let reason = answer.field("x-gapless-reason").expect("a reason");
    assert_eq!(text(&server, "error.type"), reason);
}

#[test]
fn what_a_route_changes_is_what_the_try_was_for() {
    let (endpoint, collector) = (Endpoint::start("one"), Collector::start());
    let config = exporting(&collector.url(), "sample = \"100%\"")
        .route("path = \"/old/\"\nrewrite = { prefix = \"/new/\", host = \"inner.example\" }")
        .zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_ready(&config);
    client::get(gapless.address, "/old/x?k=v");
    assert_eq!(endpoint.seen()[0].head.word(1), "/new/x?k=v");
    let (server, tries) = collector.request("/old/x");
    assert_eq!(text(&server, "server.address"), "test.example");
    assert_eq!(text(&tries[0], "url.full"), "http://inner.example/new/x?k=*");
}
