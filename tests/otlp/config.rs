//! What is checked of where spans go.

use std::time::Duration;

use gapless::config::{self, model::Sampling};

use crate::exporting;

const URL: &str = "http://127.0.0.1:4318";

fn text(url: &str, keys: &str) -> String {
    exporting(url, keys).zone("here/a", &[([127, 0, 0, 1], 18_001).into()]).text()
}

/// `message | mend` of all errors and warnings.
fn found(text: &str) -> Vec<String> {
    let report = match config::parse("test.toml", text) {
        Ok(loaded) => loaded.warnings,
        Err(report) => report,
    };
    report.diagnostics.iter().map(|d| format!("{} | {}", d.message, d.mend)).collect()
}

#[track_caller]
fn one(text: &str, expected: &str) {
    let found = found(text);
    assert!(found.len() == 1 && found[0].contains(expected), "{found:#?}\nnot: {expected}");
}

#[test]
fn defaults_and_what_follows_from_them() {
    let config = config::parse("test.toml", &text(URL, "")).expect("good").config;
    assert!(config.headers.traceparent, "spans need it");
    assert_eq!(config.headers.sampling, Sampling::new(10_000));
    let otlp = config.otlp.expect("a collector");
    assert_eq!(otlp.endpoint, "http://127.0.0.1:4318/v1/traces");
    assert_eq!((otlp.queue, otlp.batch, otlp.timeout), (2_048, 512, Duration::from_secs(10)));
    assert_eq!((otlp.service.as_str(), otlp.headers.len(), otlp.tls), ("gapless", 0, None));
}

#[test]
fn urls_are_those_of_collectors() {
    let endpoint = |url: &str| {
        let config = config::parse("test.toml", &text(url, "")).expect("good").config;
        config.otlp.expect("a collector").endpoint.to_string()
    };
    assert_eq!(endpoint("https://a.example/otlp/"), "https://a.example/otlp/v1/traces");
    assert_eq!(endpoint("http://a.example:1/v1/traces"), "http://a.example:1/v1/traces");
    assert_eq!(endpoint("http://[::1]:4318"), "http://[::1]:4318/v1/traces");
    one(&text("collector:4318", ""), "is not a URL | write it as \"http://collector:4318\"");
    one(&text("grpc://a.example", ""), "`grpc` is no way to speak to a collector");
    one(&text("https://u:p@a.example", ""), "has no credentials");
    one(&text("http://a.example/?key=1", ""), "has more than a path");
    one(&text("http://", ""), "is not a URL");
    one(&text("http://a b", ""), "is not a URL");
    one(&text("http://a.example:4317", ""), "4317 is the port for gRPC");
    one(&text(URL, "").replace("endpoint = \"http", "service = \"http"), "has no `endpoint`");
}

#[test]
fn shares_and_fields_are_checked() {
    for (given, millionths) in [("0%", 0), ("0.1%", 1_000), ("100 %", 1_000_000)] {
        let text = text(URL, &format!("sample = \"{given}\""));
        let config = config::parse("test.toml", &text).expect("good").config;
        assert_eq!(config.headers.sampling, Sampling::new(millionths), "{given}");
    }
    one(&text(URL, "sample = \"5\""), "`5` is no share of traces | write it as \"5%\"");
    for bad in ["101%", "-1%", "some", "NaN%"] {
        one(&text(URL, &format!("sample = \"{bad}\"")), "is no share of traces");
    }
    one(&text(URL, "headers = { \"a b\" = \"x\" }"), "the name is not one of a header");
    one(&text(URL, "headers = { Host = \"x\" }"), "`host` is written by gapless");
    one(&text(URL, "headers = { x-a = \"\\n\" }"), "the value of `x-a` cannot stand in a header");
    one(&text(URL, "headers = { x-a = \"1\", X-A = \"2\" }"), "`x-a` is given twice");
    one(&text(URL, "headers_file = \"/nowhere\""), "cannot read `/nowhere`");
    one(&text(URL, "queue = 0"), "`queue` must be from 1 to 65536");
    one(&text(URL, "tls = { verify = true }"), "`tls` has no meaning with an endpoint of `http`");
    let off = text(URL, "").replace("[otlp]", "[headers]\ntraceparent = false\n[otlp]");
    one(&off, "spans need `traceparent` to be parts of traces | leave `traceparent` away");
}

#[test]
fn a_secret_in_cleartext_is_warned_of() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let file = directory.path().join("fields");
    std::fs::write(&file, "x-token: t").expect("written");
    let keys = format!("headers_file = \"{}\"", file.display());
    one(&text("http://a.example", &keys), "goes to the collector in cleartext");
    assert_eq!(found(&text(URL, &keys)), [""; 0], "on this machine it does not matter");
    assert_eq!(found(&text("https://a.example", &keys)), [""; 0]);
}
