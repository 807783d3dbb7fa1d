//! Checks of `[otlp]`.

use std::time::Duration;

use gapless::config::{self, model::TraceSampling};

use crate::otlp_config;

const URL: &str = "http://127.0.0.1:4318";

fn config_text(url: &str, keys: &str) -> String {
    otlp_config(url, keys).zone("here/a", &[([127, 0, 0, 1], 18_001).into()]).text()
}

/// `message | help` of all errors and warnings.
fn diagnostics_of(text: &str) -> Vec<String> {
    let report = match config::parse("test.toml", text) {
        Ok(loaded) => loaded.warnings,
        Err(report) => report,
    };
    report.diagnostics.iter().map(|d| format!("{} | {}", d.message, d.help)).collect()
}

#[track_caller]
fn assert_one_diagnostic(text: &str, expected: &str) {
    let found = diagnostics_of(text);
    assert!(found.len() == 1 && found[0].contains(expected), "{found:#?}\nnot: {expected}");
}

#[test]
fn otlp_defaults_enable_traceparent_and_sampling() {
    let config = config::parse("test.toml", &config_text(URL, "")).expect("good").config;
    assert!(config.headers.should_set_traceparent, "spans need it");
    assert_eq!(config.headers.sampling, TraceSampling::new(10_000));
    let otlp = config.otlp.expect("a collector");
    assert_eq!(otlp.endpoint, "http://127.0.0.1:4318/v1/traces");
    assert_eq!(
        (otlp.queue_spans, otlp.batch_spans, otlp.timeout),
        (2_048, 512, Duration::from_secs(10))
    );
    assert_eq!((otlp.service.as_str(), otlp.headers.len(), otlp.tls), ("gapless", 0, None));
}

#[test]
fn collector_url_is_normalised_or_rejected() {
    let normalised_endpoint = |url: &str| {
        let config = config::parse("test.toml", &config_text(url, "")).expect("good").config;
        config.otlp.expect("a collector").endpoint.to_string()
    };
    assert_eq!(normalised_endpoint("https://a.example/otlp/"), "https://a.example/otlp/v1/traces");
    assert_eq!(normalised_endpoint("http://a.example:1/v1/traces"), "http://a.example:1/v1/traces");
    assert_eq!(normalised_endpoint("http://[::1]:4318"), "http://[::1]:4318/v1/traces");
    assert_one_diagnostic(
        &config_text("collector:4318", ""),
        "is not a URL | write it as \"http://collector:4318\"",
    );
    assert_one_diagnostic(
        &config_text("grpc://a.example", ""),
        "`grpc` is not supported for a collector",
    );
    assert_one_diagnostic(&config_text("https://u:p@a.example", ""), "has no credentials");
    assert_one_diagnostic(&config_text("http://a.example/?key=1", ""), "has more than a path");
    assert_one_diagnostic(&config_text("http://", ""), "is not a URL");
    assert_one_diagnostic(&config_text("http://a b", ""), "is not a URL");
    assert_one_diagnostic(&config_text("http://a.example:4317", ""), "4317 is the port for gRPC");
    assert_one_diagnostic(
        &config_text(URL, "").replace("endpoint = \"http", "service = \"http"),
        "has no `endpoint`",
    );
}

#[test]
fn invalid_otlp_settings_are_reported() {
    for (given, millionths) in [("0%", 0), ("0.1%", 1_000), ("100 %", 1_000_000)] {
        let text = config_text(URL, &format!("sample = \"{given}\""));
        let config = config::parse("test.toml", &text).expect("good").config;
        assert_eq!(config.headers.sampling, TraceSampling::new(millionths), "{given}");
    }
    assert_one_diagnostic(
        &config_text(URL, "sample = \"5\""),
        "`5` is not a share of traces | write it as \"5%\"",
    );
    for bad in ["101%", "-1%", "some", "NaN%"] {
        assert_one_diagnostic(
            &config_text(URL, &format!("sample = \"{bad}\"")),
            "is not a share of traces",
        );
    }
    assert_one_diagnostic(
        &config_text(URL, "headers = { \"a b\" = \"x\" }"),
        "this is not a header name",
    );
    assert_one_diagnostic(
        &config_text(URL, "headers = { Host = \"x\" }"),
        "`host` is written by gapless",
    );
    assert_one_diagnostic(
        &config_text(URL, "headers = { x-a = \"\\n\" }"),
        "the value of `x-a` cannot stand in a header",
    );
    assert_one_diagnostic(
        &config_text(URL, "headers = { x-a = \"1\", X-A = \"2\" }"),
        "`x-a` is given twice",
    );
    assert_one_diagnostic(
        &config_text(URL, "headers_file = \"/nowhere\""),
        "cannot read `/nowhere`",
    );
    assert_one_diagnostic(&config_text(URL, "queue = 0"), "`queue` must be from 1 to 65536");
    assert_one_diagnostic(
        &config_text(URL, "tls = { verify = true }"),
        "`tls` has no meaning with an endpoint of `http`",
    );
    let without_traceparent =
        config_text(URL, "").replace("[otlp]", "[headers]\ntraceparent = false\n[otlp]");
    assert_one_diagnostic(
        &without_traceparent,
        "spans need `traceparent` to be parts of traces | remove `traceparent`",
    );
}

#[test]
fn secret_header_in_cleartext_is_a_warning() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let file = directory.path().join("fields");
    std::fs::write(&file, "x-token: t").expect("written");
    let keys = format!("headers_file = \"{}\"", file.display());
    assert_one_diagnostic(
        &config_text("http://a.example", &keys),
        "goes to the collector in cleartext",
    );
    assert_eq!(
        diagnostics_of(&config_text(URL, &keys)),
        [""; 0],
        "on this machine it does not matter"
    );
    assert_eq!(diagnostics_of(&config_text("https://a.example", &keys)), [""; 0]);
}
