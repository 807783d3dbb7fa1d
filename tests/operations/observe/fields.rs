//! What endpoints and clients are told of a request: for whom, and by what name it is known.

use super::logged;
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::wire::Head;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn last(endpoint: &Endpoint) -> Head {
    endpoint.seen().pop().expect("a request").head
}

fn all<'a>(head: &'a Head, name: &'a str) -> Vec<&'a str> {
    head.all(name).collect()
}

#[test]
fn a_trusted_proxy_is_believed_and_what_a_client_has_put_before_it_is_not() {
    let config = Config::new().keys("trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]");
    let (endpoint, gapless, log) = logged(config, "");
    let fields = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-for", "192.0.2.1, 10.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "public.example"),
        ("forwarded", "for=6.6.6.6"),
        ("x-request-id", "of-the-proxy"),
    ];
    let mut client = Client::open(gapless.address);
    client.exchange("GET", "/believed", &fields, b"").expect("answered");
    let head = last(&endpoint);
    assert_eq!(all(&head, "x-forwarded-for"), ["6.6.6.6, 192.0.2.1, 10.1.1.1, 127.0.0.1"]);
    assert_eq!(all(&head, "x-forwarded-proto"), ["https"]);
    assert_eq!(all(&head, "x-forwarded-host"), ["public.example"]);
    assert_eq!(all(&head, "x-request-id"), ["of-the-proxy"]);
    assert_eq!(head.field("forwarded"), None);
    let line = log.line_of("/believed");
    assert_eq!((&line["client"], &line["scheme"]), (&"192.0.2.1".into(), &"https".into()));
    assert_eq!(line["request_id"], "of-the-proxy");
}

#[test]
fn anybody_else_is_replaced() {
    let config = Config::new().keys("trusted_proxies = [\"10.0.0.0/8\"]");
    let (endpoint, gapless, log) = logged(config, "");
    let fields = [
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=10.0.0.1"),
        ("x-request-id", "forged"),
    ];
    let mut client = Client::open(gapless.address);
    client.exchange("GET", "/spoofed", &fields, b"").expect("answered");
    let head = last(&endpoint);
    assert_eq!(all(&head, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(all(&head, "x-forwarded-proto"), ["http"]);
    assert_eq!(head.field("forwarded"), None);
    assert_ne!(head.field("x-request-id"), Some("forged"));
    let line = log.line_of("/spoofed");
    assert_eq!((&line["client"], &line["scheme"]), (&"127.0.0.1".into(), &"http".into()));
}

#[test]
fn the_standard_field_can_be_chosen() {
    let config = Config::default().keys("workers = 1\ntrusted_proxies = [\"127.0.0.1\"]");
    let config = config.tables("[headers]\nforwarded = \"forwarded\"");
    let (endpoint, gapless, log) = logged(config, "");
    let fields = [("forwarded", "for=192.0.2.1;proto=https"), ("x-forwarded-for", "6.6.6.6")];
    let mut client = Client::open(gapless.address);
    client.exchange("GET", "/standard", &fields, b"").expect("answered");
    let head = last(&endpoint);
    let own = "for=127.0.0.1;proto=http;host=\"test.example\"";
    let expected = format!("for=192.0.2.1;proto=https, {own}");
    assert_eq!(all(&head, "forwarded"), [expected.as_str()]);
    assert_eq!(head.field("x-forwarded-for"), None);
    assert_eq!(log.line_of("/standard")["client"], "192.0.2.1");
}

#[test]
fn a_request_has_one_name_for_the_endpoint_the_log_and_the_client() {
    let (endpoint, gapless, log) = logged(Config::new().route("path = \"/in\""), "");
    let mut client = Client::open(gapless.address);
    let answer = client.get("/in");
    assert_eq!(answer.field("x-request-id"), None, "an endpoint's answer is passed on as it is");
    let id = last(&endpoint).field("x-request-id").expect("an id").to_owned();
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    assert_eq!(log.line_of("/in")["request_id"], id.as_str());
    client.get("/in");
    assert_ne!(last(&endpoint).field("x-request-id"), Some(id.as_str()));
    let refusal = client.get("/out");
    assert_eq!(refusal.verdict(), (404, Some("no_route")));
    let id = refusal.field("x-request-id").expect("an id");
    assert_eq!(log.line_of("/out")["request_id"], id);
}

#[test]
fn names_can_be_left_to_others() {
    let config = Config::default().keys("workers = 1");
    let config = config.tables("[headers]\nrequest_id = false\nforwarded = \"off\"");
    let (endpoint, gapless, log) = logged(config, "");
    let fields = [
        ("x-request-id", "of-the-client"),
        ("x-forwarded-for", "6.6.6.6"),
        ("traceparent", PARENT),
        ("tracestate", "a=b"),
    ];
    let mut client = Client::open(gapless.address);
    client.exchange("GET", "/", &fields, b"").expect("answered");
    let head = last(&endpoint);
    assert_eq!(head.field("x-request-id"), Some("of-the-client"));
    assert_eq!((head.field("x-forwarded-for"), head.field("x-forwarded-host")), (None, None));
    assert_eq!((head.field("traceparent"), head.field("tracestate")), (Some(PARENT), Some("a=b")));
    let line = log.line_of("/");
    assert!(line["request_id"].is_null() && line["trace_id"].is_null(), "{line:#}");
}

#[test]
fn a_trace_goes_on_with_a_part_of_our_own() {
    let config = Config::default().keys("workers = 1").tables("[headers]\ntraceparent = true");
    let (endpoint, gapless, log) = logged(config, "");
    let mut client = Client::open(gapless.address);
    let fields = [("traceparent", PARENT), ("tracestate", "a=b")];
    client.exchange("GET", "/traced", &fields, b"").expect("answered");
    let head = last(&endpoint);
    let parent = head.field("traceparent").expect("a parent");
    assert_eq!((&parent[..36], &parent[52..]), (&PARENT[..36], "-01"));
    assert_ne!(parent, PARENT);
    assert_eq!(head.field("tracestate"), Some("a=b"));
    let line = log.line_of("/traced");
    assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(line["span_id"], parent[36..52]);
    let fields = [("traceparent", "rubbish"), ("tracestate", "a=b")];
    client.exchange("GET", "/begun", &fields, b"").expect("answered");
    let head = last(&endpoint);
    let parent = head.field("traceparent").expect("a parent");
    assert!(parent.starts_with("00-") && parent.ends_with("-00"), "{parent}");
    assert_eq!(head.field("tracestate"), None);
    assert_eq!(log.line_of("/begun")["trace_id"], parent[3..35]);
}
