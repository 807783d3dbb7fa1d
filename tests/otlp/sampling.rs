//! Sampling, and the traces that spans belong to.

use crate::collector::{SpanCollector, attribute, hex, is_error};
use crate::support::client::TestClient;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually};
use crate::{TRACE_ID, client_traceparent, otlp_config, start_traced};

fn received_traceparent(endpoint: &TestEndpoint) -> String {
    let head = endpoint.requests().pop().expect("a request").head;
    head.field("traceparent").expect("a parent").to_owned()
}

#[test]
fn sampled_flag_of_traceparent_is_respected() {
    let (endpoint, gapless, collector) = start_traced("sample = \"0%\"");
    let mut client = TestClient::open(gapless.address);
    let mut send_request = |path: &str, flags: Option<&str>| {
        let given = flags.map(client_traceparent);
        let fields: Vec<_> = given
            .iter()
            .flat_map(|given| [("traceparent", given.as_str()), ("tracestate", "a=b")])
            .collect();
        client.exchange("GET", path, &fields, b"").expect("answered");
        received_traceparent(&endpoint)
    };
    let seen = send_request("/unsampled", Some("00"));
    assert!(seen[3..].starts_with(TRACE_ID) && seen.ends_with("-00"), "{seen}");
    let seen = send_request("/begun-here", None);
    assert!(!seen.contains(TRACE_ID) && seen.ends_with("-00"), "{seen}");
    let seen = send_request("/sampled", Some("01"));
    assert!(seen[3..].starts_with(TRACE_ID) && seen.ends_with("-01"), "{seen}");
    let (server, attempts) = collector.spans_of_request("/sampled");
    assert_eq!(
        (hex(&server.trace_id).as_str(), hex(&server.parent_span_id).as_str()),
        (TRACE_ID, "00f067aa0ba902b7")
    );
    assert_eq!((server.flags, server.trace_state.as_str()), (0x301, "a=b"));
    assert_eq!(attempts.len(), 1);
    assert_eq!(
        seen,
        format!("00-{TRACE_ID}-{}-01", hex(&attempts[0].span_id)),
        "the try is the parent"
    );
    assert_eq!((attempts[0].flags, hex(&attempts[0].trace_id).as_str()), (0x101, TRACE_ID));
    assert_eq!(endpoint.requests().pop().expect("a request").head.field("tracestate"), Some("a=b"));
    assert_eq!(collector.spans().len(), 2, "nothing of the others");
    let exported = || gapless.metric("gapless_otlp_spans_exported_total");
    eventually("both are counted", DEFAULT_TIMEOUT, || exported() == 2.0);
}

#[test]
fn root_trace_is_sampled_at_configured_rate() {
    let (endpoint, gapless, collector) = start_traced("sample = \"100%\"");
    let fields = [("tracestate", "of=nothing"), ("traceparent", "rubbish")];
    let mut client = TestClient::open(gapless.address);
    client.exchange("GET", "/", &fields, b"").expect("answered");
    let seen = received_traceparent(&endpoint);
    let (server, attempts) = collector.spans_of_request("/");
    assert_eq!(seen, format!("00-{}-{}-01", hex(&server.trace_id), hex(&attempts[0].span_id)));
    assert!(server.parent_span_id.is_empty() && server.trace_state.is_empty(), "{server:?}");
    assert!(!is_error(&server) && !is_error(&attempts[0]));

    let half_sampled_config = otlp_config(&collector.url(), "sample = \"50%\"");
    let gapless = Gapless::start_ready(&half_sampled_config.zone("here/a", &[endpoint.address()]));
    let mut client = TestClient::open(gapless.address);
    for _ in 0..400 {
        client.get("/half");
    }
    let requests = endpoint.requests().split_off(1);
    let parents = requests.iter().map(|seen| seen.head.field("traceparent").expect("a parent"));
    let sampled = parents.filter(|parent| parent.ends_with("-01")).count();
    // Chance leaves these bounds once in ten thousand million runs.
    assert!((135..265).contains(&sampled), "{sampled} of 400");
    let half_spans =
        || collector.spans().iter().filter(|span| attribute(span, "url.path") == "/half").count();
    eventually("all of those have come", DEFAULT_TIMEOUT, || half_spans() == sampled);
}

#[test]
fn mirrored_request_is_not_sampled() {
    let (mirror_endpoint, collector) = (TestEndpoint::start("copies"), SpanCollector::start());
    let endpoint = TestEndpoint::start("one");
    let config = otlp_config(&collector.url(), "sample = \"100%\"")
        .route("mirror = { pool = \"copies\" }")
        .zone("here/a", &[endpoint.address()]);
    let text = format!(
        "{}\n[pool.copies]\nprobe = {{ http = \"/healthz\" }}\n[[pool.copies.zone]]\n\
         name = \"here/a\"\nendpoints = [\"{}\"]\n",
        config.text(),
        mirror_endpoint.address()
    );
    let directory = tempfile::TempDir::new().expect("a directory");
    let file = directory.path().join("gapless.toml");
    std::fs::write(&file, text).expect("written");
    let gapless = Gapless::start_with_file(directory, file);
    gapless.wait_all_up();
    let mut client = TestClient::open(gapless.address);
    let given = client_traceparent("01");
    client.exchange("GET", "/", &[("traceparent", given.as_str())], b"").expect("answered");
    eventually("the copy came", DEFAULT_TIMEOUT, || !mirror_endpoint.requests().is_empty());
    let seen = received_traceparent(&mirror_endpoint);
    assert!(seen.ends_with("-00"), "its parent would be a span that is not exported: {seen}");
    assert!(received_traceparent(&endpoint).ends_with("-01"));
    assert_eq!(collector.spans_of_request("/").1.len(), 1);
}
