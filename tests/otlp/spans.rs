//! What spans are made of a request of which all is known.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use gapless::app::otlp::{Leg, Story, spans_of};
use gapless::logic::id::Place;
use http::{Method, Version};

use crate::collector::{is_error, text};

fn story() -> Story {
    let leg = |ordinal: u32, status: Option<u16>, outcome| Leg {
        endpoint: ([10, 0, 0, 1], 8080).into(),
        place: Place::parse("r/a").expect("a place"),
        span: *b"00000000000000ff",
        ordinal,
        began: Duration::from_millis(1),
        over: Duration::from_millis(2),
        scheme: "https",
        status,
        outcome,
    };
    let client = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
    Story {
        began: Duration::from_secs(1_000),
        elapsed: Duration::from_millis(5),
        trace: (*b"4bf92f3577b34da6a3ce929d0e0e4736", *b"00f067aa0ba902b7"),
        parent: None,
        state: String::new(),
        method: Method::GET,
        version: Version::HTTP_11,
        scheme: "http",
        host: "a.example:81".to_owned(),
        path: "/p".to_owned(),
        query: Some("q=*".to_owned()),
        url: "a.example:81/p?q=*".to_owned(),
        user_agent: None,
        client,
        peer: client,
        status: Some(200),
        reason: None,
        is_cut: false,
        route: Some(Arc::from("*/")),
        pool: Some(Arc::from("web")),
        request_id: String::new(),
        attempts: 2,
        legs: vec![leg(0, None, Some("refused")), leg(1, Some(404), None)],
    }
}

#[test]
fn ids_are_their_bytes_and_times_those_of_the_request() {
    let spans = spans_of(&story());
    assert_eq!(spans[0].trace_id[..4], [0x4b, 0xf9, 0x2f, 0x35]);
    assert_eq!(spans[1].parent_span_id, spans[0].span_id);
    assert_eq!(spans[1].span_id, [0, 0, 0, 0, 0, 0, 0, 0xff]);
    assert_eq!(spans[0].end_time_unix_nano, 1_000_005_000_000);
    assert_eq!(spans[1].start_time_unix_nano, 1_000_001_000_000);
    let remote = Story { parent: Some(*b"000000000000000a"), ..story() };
    assert_eq!((spans[0].flags, spans_of(&remote)[0].flags), (0x101, 0x301));
}

#[test]
fn what_is_an_error_depends_on_who_looks() {
    let spans = spans_of(&story());
    assert!(!is_error(&spans[0]), "the request was rescued");
    assert!(is_error(&spans[1]) && is_error(&spans[2]), "a 404 is one for who asked");
    assert_eq!(text(&spans[1], "error.type"), "refused");
    assert_eq!(text(&spans[2], "error.type"), "404");
    assert_eq!(text(&spans[1], "http.request.resend_count"), "");
    assert_eq!(text(&spans[2], "http.request.resend_count"), "1");
    assert_eq!(text(&spans[1], "url.full"), "https://a.example:81/p?q=*");
    for (status, reason, is_cut, error) in [
        (Some(503), Some("no_endpoint"), false, "no_endpoint"),
        (Some(500), None, false, "500"),
        (Some(200), Some("cut"), true, "cut"),
        (Some(404), Some("no_route"), false, ""),
        (None, Some("client_abort"), false, ""),
    ] {
        let spans = spans_of(&Story { status, reason, is_cut, ..story() });
        assert_eq!(text(&spans[0], "error.type"), error, "{reason:?}");
        assert_eq!(is_error(&spans[0]), !error.is_empty(), "{reason:?}");
    }
    let mut left = story();
    left.legs[0].outcome = Some("left");
    assert!(!is_error(&spans_of(&left)[1]), "nobody's failure");
}

#[test]
fn methods_and_hosts_that_nobody_knows_cannot_make_names() {
    let method = Method::from_bytes(b"BREW").expect("a method");
    let spans = spans_of(&Story { method, route: None, ..story() });
    assert_eq!((spans[0].name.as_str(), spans[1].name.as_str()), ("HTTP", "HTTP"));
    assert_eq!(text(&spans[0], "http.request.method"), "_OTHER");
    assert_eq!(text(&spans[0], "http.request.method_original"), "BREW");
    for (host, name, port) in [
        ("[::1]:80", "::1", "80"),
        ("[::1]", "::1", ""),
        ("a.example", "a.example", ""),
        ("a.example:81", "a.example", "81"),
        ("", "", ""),
    ] {
        let spans = spans_of(&Story { host: host.to_owned(), ..story() });
        let (address, told) = (text(&spans[0], "server.address"), text(&spans[0], "server.port"));
        assert_eq!((address.as_str(), told.as_str()), (name, port), "{host}");
    }
}
