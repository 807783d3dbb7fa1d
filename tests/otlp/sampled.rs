//! Of which requests there are spans, and what traces they are parts of.

use crate::collector::{Collector, hex, is_error, text};
use crate::support::client::Client;
use crate::support::endpoint::Endpoint;
use crate::support::instance::Gapless;
use crate::support::{SOON, eventually};
use crate::{TRACE, exporting, parent, traced};

fn traceparent(endpoint: &Endpoint) -> String {
    let head = endpoint.seen().pop().expect("a request").head;
    head.field("traceparent").expect("a parent").to_owned()
}

#[test]
fn the_flag_of_a_trace_is_obeyed() {
    let (endpoint, gapless, collector) = traced("sample = \"0%\"");
    let mut client = Client::open(gapless.address);
    let mut ask = |path: &str, flags: Option<&str>| {
        let given = flags.map(parent);
        let fields: Vec<_> = given
            .iter()
            .flat_map(|given| [("traceparent", given.as_str()), ("tracestate", "a=b")])
            .collect();
        client.exchange("GET", path, &fields, b"").expect("answered");
        traceparent(&endpoint)
    };
    let seen = ask("/unsampled", Some("00"));
    assert!(seen[3..].starts_with(TRACE) && seen.ends_with("-00"), "{seen}");
    let seen = ask("/begun-here", None);
    assert!(!seen.contains(TRACE) && seen.ends_with("-00"), "{seen}");
    let seen = ask("/sampled", Some("01"));
    assert!(seen[3..].starts_with(TRACE) && seen.ends_with("-01"), "{seen}");
    let (server, tries) = collector.request("/sampled");
    assert_eq!(
        (hex(&server.trace_id).as_str(), hex(&server.parent_span_id).as_str()),
        (TRACE, "00f067aa0ba902b7")
    );
    assert_eq!((server.flags, server.trace_state.as_str()), (0x301, "a=b"));
    assert_eq!(tries.len(), 1);
    assert_eq!(seen, format!("00-{TRACE}-{}-01", hex(&tries[0].span_id)), "the try is the parent");
    assert_eq!((tries[0].flags, hex(&tries[0].trace_id).as_str()), (0x101, TRACE));
    assert_eq!(endpoint.seen().pop().expect("a request").head.field("tracestate"), Some("a=b"));
    assert_eq!(collector.spans().len(), 2, "nothing of the others");
    let exported = || gapless.metric("gapless_otlp_spans_exported_total");
    eventually("both are counted", SOON, || exported() == 2.0);
}

#[test]
fn a_trace_that_begins_here_is_kept_as_chance_has_it() {
    let (endpoint, gapless, collector) = traced("sample = \"100%\"");
    let fields = [("tracestate", "of=nothing"), ("traceparent", "rubbish")];
    let mut client = Client::open(gapless.address);
    client.exchange("GET", "/", &fields, b"").expect("answered");
    let seen = traceparent(&endpoint);
    let (server, tries) = collector.request("/");
    assert_eq!(seen, format!("00-{}-{}-01", hex(&server.trace_id), hex(&tries[0].span_id)));
    assert!(server.parent_span_id.is_empty() && server.trace_state.is_empty(), "{server:?}");
    assert!(!is_error(&server) && !is_error(&tries[0]));

    let half = exporting(&collector.url(), "sample = \"50%\"");
    let gapless = Gapless::start_ready(&half.zone("here/a", &[endpoint.address()]));
    let mut client = Client::open(gapless.address);
    for _ in 0..400 {
        client.get("/half");
    }
    let heads = endpoint.seen().split_off(1);
    let parents = heads.iter().map(|seen| seen.head.field("traceparent").expect("a parent"));
    let sampled = parents.filter(|parent| parent.ends_with("-01")).count();
    // Beyond these bounds once in ten thousand million.
    assert!((135..265).contains(&sampled), "{sampled} of 400");
    let half = || collector.spans().iter().filter(|span| text(span, "url.path") == "/half").count();
    eventually("all of those have come", SOON, || half() == sampled);
}

#[test]
fn a_copy_is_part_of_no_trace_that_is_kept() {
    let (copies, collector) = (Endpoint::start("copies"), Collector::start());
    let endpoint = Endpoint::start("one");
    let config = exporting(&collector.url(), "sample = \"100%\"")
        .route("mirror = { pool = \"copies\" }")
        .zone("here/a", &[endpoint.address()]);
    let text = format!(
        "{}\n[pool.copies]\nprobe = {{ http = \"/healthz\" }}\n[[pool.copies.zone]]\n\
         name = \"here/a\"\nendpoints = [\"{}\"]\n",
        config.text(),
        copies.address()
    );
    let directory = tempfile::TempDir::new().expect("a directory");
    let file = directory.path().join("gapless.toml");
    std::fs::write(&file, text).expect("written");
    let gapless = Gapless::start_with(directory, file);
    gapless.wait_all_up();
    let mut client = Client::open(gapless.address);
    let given = parent("01");
    client.exchange("GET", "/", &[("traceparent", given.as_str())], b"").expect("answered");
    eventually("the copy came", SOON, || !copies.seen().is_empty());
    let seen = traceparent(&copies);
    assert!(seen.ends_with("-00"), "its parent would be a span that nobody exports: {seen}");
    assert!(traceparent(&endpoint).ends_with("-01"));
    assert_eq!(collector.request("/").1.len(), 1);
}
