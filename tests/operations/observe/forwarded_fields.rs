//! Forwarding fields and request ids towards endpoints and clients.

use super::start_with_access_log;
use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::wire::MessageHead;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn last_request_head(endpoint: &TestEndpoint) -> MessageHead {
    endpoint.requests().pop().expect("a request").head
}

fn field_values<'a>(head: &'a MessageHead, name: &'a str) -> Vec<&'a str> {
    head.field_values(name).collect()
}

#[test]
fn trusted_proxy_fields_are_used_only_up_to_untrusted_hop() {
    let config = ConfigBuilder::new().keys("trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]");
    let (endpoint, gapless, log) = start_with_access_log(config, "");
    let fields = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-for", "192.0.2.1, 10.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "public.example"),
        ("forwarded", "for=6.6.6.6"),
        ("x-request-id", "of-the-proxy"),
    ];
    let mut client = TestClient::open(gapless.address);
    client.exchange("GET", "/believed", &fields, b"").expect("answered");
    let head = last_request_head(&endpoint);
    assert_eq!(field_values(&head, "x-forwarded-for"), ["6.6.6.6, 192.0.2.1, 10.1.1.1, 127.0.0.1"]);
    assert_eq!(field_values(&head, "x-forwarded-proto"), ["https"]);
    assert_eq!(field_values(&head, "x-forwarded-host"), ["public.example"]);
    assert_eq!(field_values(&head, "x-request-id"), ["of-the-proxy"]);
    assert_eq!(head.field("forwarded"), None);
    let line = log.wait_for_line("/believed");
    assert_eq!((&line["client"], &line["scheme"]), (&"192.0.2.1".into(), &"https".into()));
    assert_eq!(line["request_id"], "of-the-proxy");
}

#[test]
fn forwarded_fields_of_untrusted_client_are_replaced() {
    let config = ConfigBuilder::new().keys("trusted_proxies = [\"10.0.0.0/8\"]");
    let (endpoint, gapless, log) = start_with_access_log(config, "");
    let fields = [
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=10.0.0.1"),
        ("x-request-id", "forged"),
    ];
    let mut client = TestClient::open(gapless.address);
    client.exchange("GET", "/spoofed", &fields, b"").expect("answered");
    let head = last_request_head(&endpoint);
    assert_eq!(field_values(&head, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(field_values(&head, "x-forwarded-proto"), ["http"]);
    assert_eq!(head.field("forwarded"), None);
    assert_ne!(head.field("x-request-id"), Some("forged"));
    let line = log.wait_for_line("/spoofed");
    assert_eq!((&line["client"], &line["scheme"]), (&"127.0.0.1".into(), &"http".into()));
}

#[test]
fn standard_forwarded_field_can_be_configured() {
    let config = ConfigBuilder::default().keys("workers = 1\ntrusted_proxies = [\"127.0.0.1\"]");
    let config = config.tables("[headers]\nforwarded = \"forwarded\"");
    let (endpoint, gapless, log) = start_with_access_log(config, "");
    let fields = [("forwarded", "for=192.0.2.1;proto=https"), ("x-forwarded-for", "6.6.6.6")];
    let mut client = TestClient::open(gapless.address);
    client.exchange("GET", "/standard", &fields, b"").expect("answered");
    let head = last_request_head(&endpoint);
    let own_element = "for=127.0.0.1;proto=http;host=\"test.example\"";
    let expected = format!("for=192.0.2.1;proto=https, {own_element}");
    assert_eq!(field_values(&head, "forwarded"), [expected.as_str()]);
    assert_eq!(head.field("x-forwarded-for"), None);
    assert_eq!(log.wait_for_line("/standard")["client"], "192.0.2.1");
}

#[test]
fn request_id_is_the_same_for_endpoint_log_and_client() {
    let (endpoint, gapless, log) =
        start_with_access_log(ConfigBuilder::new().route("path = \"/in\""), "");
    let mut client = TestClient::open(gapless.address);
    let answer = client.get("/in");
    assert_eq!(answer.field("x-request-id"), None, "an endpoint's answer is passed on as it is");
    let id = last_request_head(&endpoint).field("x-request-id").expect("an id").to_owned();
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    assert_eq!(log.wait_for_line("/in")["request_id"], id.as_str());
    client.get("/in");
    assert_ne!(last_request_head(&endpoint).field("x-request-id"), Some(id.as_str()));
    let refusal = client.get("/out");
    assert_eq!(refusal.status_and_reason(), (404, Some("no_route")));
    let id = refusal.field("x-request-id").expect("an id");
    assert_eq!(log.wait_for_line("/out")["request_id"], id);
}

#[test]
fn request_id_and_forwarded_fields_can_be_disabled() {
    let config = ConfigBuilder::default().keys("workers = 1");
    let config = config.tables("[headers]\nrequest_id = false\nforwarded = \"off\"");
    let (endpoint, gapless, log) = start_with_access_log(config, "");
    let fields = [
        ("x-request-id", "of-the-client"),
        ("x-forwarded-for", "6.6.6.6"),
        ("traceparent", TRACEPARENT),
        ("tracestate", "a=b"),
    ];
    let mut client = TestClient::open(gapless.address);
    client.exchange("GET", "/", &fields, b"").expect("answered");
    let head = last_request_head(&endpoint);
    assert_eq!(head.field("x-request-id"), Some("of-the-client"));
    assert_eq!((head.field("x-forwarded-for"), head.field("x-forwarded-host")), (None, None));
    assert_eq!(
        (head.field("traceparent"), head.field("tracestate")),
        (Some(TRACEPARENT), Some("a=b"))
    );
    let line = log.wait_for_line("/");
    assert!(line["request_id"].is_null() && line["trace_id"].is_null(), "{line:#}");
}

#[test]
fn trace_context_continues_with_own_span() {
    let config =
        ConfigBuilder::default().keys("workers = 1").tables("[headers]\ntraceparent = true");
    let (endpoint, gapless, log) = start_with_access_log(config, "");
    let mut client = TestClient::open(gapless.address);
    let fields = [("traceparent", TRACEPARENT), ("tracestate", "a=b")];
    client.exchange("GET", "/traced", &fields, b"").expect("answered");
    let head = last_request_head(&endpoint);
    let parent = head.field("traceparent").expect("a parent");
    assert_eq!((&parent[..36], &parent[52..]), (&TRACEPARENT[..36], "-01"));
    assert_ne!(parent, TRACEPARENT);
    assert_eq!(head.field("tracestate"), Some("a=b"));
    let line = log.wait_for_line("/traced");
    assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(line["span_id"], parent[36..52]);
    let fields = [("traceparent", "rubbish"), ("tracestate", "a=b")];
    client.exchange("GET", "/begun", &fields, b"").expect("answered");
    let head = last_request_head(&endpoint);
    let parent = head.field("traceparent").expect("a parent");
    assert!(parent.starts_with("00-") && parent.ends_with("-00"), "{parent}");
    assert_eq!(head.field("tracestate"), None);
    assert_eq!(log.wait_for_line("/begun")["trace_id"], parent[3..35]);
}
