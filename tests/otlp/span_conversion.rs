//! Conversion of a completed request to spans.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use gapless::app::ops::otlp::{AttemptSpan, RequestTrace, spans_of};
use gapless::logic::model::id::Locality;
use http::{Method, Version};

use crate::collector::{attribute, is_error};

fn request_trace() -> RequestTrace {
    let attempt_span = |ordinal: u32, status: Option<u16>, outcome| AttemptSpan {
        endpoint: ([10, 0, 0, 1], 8080).into(),
        place: Locality::parse("r/a").expect("a place"),
        span_id: *b"00000000000000ff",
        prior_attempts: ordinal,
        started: Duration::from_millis(1),
        ended: Duration::from_millis(2),
        scheme: "https",
        status,
        outcome,
    };
    let client = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
    RequestTrace {
        started: Duration::from_secs(1_000),
        elapsed: Duration::from_millis(5),
        trace: (*b"4bf92f3577b34da6a3ce929d0e0e4736", *b"00f067aa0ba902b7"),
        parent: None,
        tracestate: String::new(),
        method: Method::GET,
        version: Version::HTTP_11,
        scheme: "http",
        host: "a.example:81".to_owned(),
        path: "/p".to_owned(),
        query: Some("q=*".to_owned()),
        url: "a.example:81/p?q=*".to_owned(),
        user_agent: None,
        client_ip: client,
        peer_ip: client,
        status: Some(200),
        reason: None,
        is_truncated: false,
        route: Some(Arc::from("*/")),
        pool: Some(Arc::from("web")),
        request_id: String::new(),
        attempts: 2,
        attempt_spans: vec![
            attempt_span(0, None, Some("refused")),
            attempt_span(1, Some(404), None),
        ],
    }
}

#[test]
fn span_ids_and_times_come_from_the_trace() {
    let spans = spans_of(&request_trace());
    assert_eq!(spans[0].trace_id[..4], [0x4b, 0xf9, 0x2f, 0x35]);
    assert_eq!(spans[1].parent_span_id, spans[0].span_id);
    assert_eq!(spans[1].span_id, [0, 0, 0, 0, 0, 0, 0, 0xff]);
    assert_eq!(spans[0].end_time_unix_nano, 1_000_005_000_000);
    assert_eq!(spans[1].start_time_unix_nano, 1_000_001_000_000);
    let remote = RequestTrace { parent: Some(*b"000000000000000a"), ..request_trace() };
    assert_eq!((spans[0].flags, spans_of(&remote)[0].flags), (0x101, 0x301));
}

#[test]
fn error_status_differs_for_server_and_client_spans() {
    let spans = spans_of(&request_trace());
    assert!(!is_error(&spans[0]), "the request was rescued");
    assert!(is_error(&spans[1]) && is_error(&spans[2]), "a 404 is an error of the client span");
    assert_eq!(attribute(&spans[1], "error.type"), "refused");
    assert_eq!(attribute(&spans[2], "error.type"), "404");
    assert_eq!(attribute(&spans[1], "http.request.resend_count"), "");
    assert_eq!(attribute(&spans[2], "http.request.resend_count"), "1");
    assert_eq!(attribute(&spans[1], "url.full"), "https://a.example:81/p?q=*");
    for (status, reason, is_cut, error) in [
        (Some(503), Some("no_endpoint"), false, "no_endpoint"),
        (Some(500), None, false, "500"),
        (Some(200), Some("cut"), true, "cut"),
        (Some(404), Some("no_route"), false, ""),
        (None, Some("client_abort"), false, ""),
    ] {
        let spans =
            spans_of(&RequestTrace { status, reason, is_truncated: is_cut, ..request_trace() });
        assert_eq!(attribute(&spans[0], "error.type"), error, "{reason:?}");
        assert_eq!(is_error(&spans[0]), !error.is_empty(), "{reason:?}");
    }
    let mut abandoned = request_trace();
    abandoned.attempt_spans[0].outcome = Some("left");
    assert!(!is_error(&spans_of(&abandoned)[1]), "an abandoned attempt is no failure");
}

#[test]
fn unknown_methods_and_hosts_yield_bounded_span_names() {
    let method = Method::from_bytes(b"BREW").expect("a method");
    let spans = spans_of(&RequestTrace { method, route: None, ..request_trace() });
    assert_eq!((spans[0].name.as_str(), spans[1].name.as_str()), ("HTTP", "HTTP"));
    assert_eq!(attribute(&spans[0], "http.request.method"), "_OTHER");
    assert_eq!(attribute(&spans[0], "http.request.method_original"), "BREW");
    for (host, name, port) in [
        ("[::1]:80", "::1", "80"),
        ("[::1]", "::1", ""),
        ("a.example", "a.example", ""),
        ("a.example:81", "a.example", "81"),
        ("", "", ""),
    ] {
        let spans = spans_of(&RequestTrace { host: host.to_owned(), ..request_trace() });
        let (address, server_port) =
            (attribute(&spans[0], "server.address"), attribute(&spans[0], "server.port"));
        assert_eq!((address.as_str(), server_port.as_str()), (name, port), "{host}");
    }
}
