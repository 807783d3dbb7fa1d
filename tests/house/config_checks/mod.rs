//! Every check of the configuration, with the place that it names and the help that it offers.

mod dns_names;
mod health;
mod instance;
mod listeners;
mod observability;
mod pools;
mod practice;
mod probes;
mod routes;
mod schema_words;
mod steering;
mod upstream_protocol;
use gapless::config;

/// A valid file; each test makes one thing invalid.
const VALID_CONFIG: &str = r#"
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

/// `line:column message | help` of all errors and warnings in `text`.
fn diagnostics_of(text: &str) -> Vec<String> {
    let report = match config::parse("test.toml", text) {
        Ok(loaded) => loaded.warnings,
        Err(report) => report,
    };
    let diagnostics = report.diagnostics.iter();
    diagnostics
        .map(|d| format!("{}:{} {} | {}", d.at.line, d.at.column, d.message, d.help))
        .collect()
}

/// The valid file with the first `from` replaced.
fn valid_config_with(from: &str, to: &str) -> String {
    assert!(VALID_CONFIG.contains(from), "{from}");
    VALID_CONFIG.replacen(from, to, 1)
}

/// Asserts that `text` has exactly one error or warning, and that it contains `expected`.
#[track_caller]
fn assert_one_diagnostic(text: &str, expected: &str) {
    let found = diagnostics_of(text);
    assert!(found.len() == 1 && found[0].contains(expected), "{found:#?}\nnot: {expected}");
}

/// Asserts that one line, put in front of `before`, is exactly one error.
#[track_caller]
fn assert_line_diagnostic(before: &str, line: &str, expected: &str) {
    assert_one_diagnostic(&valid_config_with(before, &format!("{line}\n{before}")), expected);
}

#[track_caller]
fn assert_route_diagnostic(keys: &str, expected: &str) {
    assert_one_diagnostic(
        &valid_config_with("pool = \"web\"", &format!("pool = \"web\"\n{keys}")),
        expected,
    );
}

#[track_caller]
fn assert_pool_diagnostic(keys: &str, expected: &str) {
    assert_one_diagnostic(
        &valid_config_with("[pool.web]", &format!("[pool.web]\n{keys}")),
        expected,
    );
}

#[track_caller]
fn assert_probe_diagnostic(probe: &str, expected: &str) {
    assert_one_diagnostic(&valid_config_with("{ http = \"/healthz\" }", probe), expected);
}

#[track_caller]
fn assert_endpoints_diagnostic(endpoints: &str, expected: &str) {
    assert_one_diagnostic(&valid_config_with("[\"127.0.0.1:18081\"]", endpoints), expected);
}
