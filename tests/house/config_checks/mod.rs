//! Every check of the configuration, each with the place that it names and the mend that it offers.

mod health;
mod instance;
mod listeners;
mod names;
mod observe;
mod pools;
mod practice;
mod probes;
mod routes;
mod speech;
mod steer;
use gapless::config;

/// A good file; the tests spoil one thing at a time.
const GOOD: &str = r#"
[[listen]]
address = "127.0.0.1:18080"

[[route]]
pool = "web"

[pool.web]
probe = { http = "/healthz" }

[[pool.web.zone]]
name = "local/a"
endpoints = ["127.0.0.1:18081"]
"#;

/// `line:column message | mend` of all errors and warnings in `text`.
fn found(text: &str) -> Vec<String> {
    let report = match config::parse("test.toml", text) {
        Ok(loaded) => loaded.warnings,
        Err(report) => report,
    };
    let diagnostics = report.diagnostics.iter();
    diagnostics
        .map(|d| format!("{}:{} {} | {}", d.at.line, d.at.column, d.message, d.mend))
        .collect()
}

/// The good file with the first `from` replaced.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

/// Asserts that `text` has exactly one error or warning, and that it contains `expected`.
#[track_caller]
fn one(text: &str, expected: &str) {
    let found = found(text);
    assert!(found.len() == 1 && found[0].contains(expected), "{found:#?}\nnot: {expected}");
}

/// Asserts that one line, put in front of `before`, is exactly one error.
#[track_caller]
fn line(before: &str, line: &str, expected: &str) {
    one(&with(before, &format!("{line}\n{before}")), expected);
}

#[track_caller]
fn route(keys: &str, expected: &str) {
    one(&with("pool = \"web\"", &format!("pool = \"web\"\n{keys}")), expected);
}

#[track_caller]
fn pool(keys: &str, expected: &str) {
    one(&with("[pool.web]", &format!("[pool.web]\n{keys}")), expected);
}

#[track_caller]
fn probe(probe: &str, expected: &str) {
    one(&with("{ http = \"/healthz\" }", probe), expected);
}

#[track_caller]
fn endpoints(endpoints: &str, expected: &str) {
    one(&with("[\"127.0.0.1:18081\"]", endpoints), expected);
}
