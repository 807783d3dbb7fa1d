//! Objectives: their measurement and reports.

use super::{LedgerDirectory, run_gapless};
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, poll_until};

use rustix::process::Signal;
use serde_json::Value;

const SLO: &str =
    "slo = { availability = \"99%\", latency = { share = \"90%\", under = \"10s\" } }";

fn with_slo(config: ConfigBuilder) -> ConfigBuilder {
    config.route(&format!("name = \"api\"\nretry = {{ attempts = 1 }}\n{SLO}")).pool(SLO)
}

fn objective(gapless: &Gapless, kind: &str, scope: &str) -> Value {
    let all = gapless.api_json("/api/v1/slo")["objectives"].clone();
    let all = all.as_array().expect("a list");
    let found = all.iter().find(|one| one["objective"] == kind && one["scope"] == scope);
    found.unwrap_or_else(|| panic!("no {kind} of {scope} in {all:#?}")).clone()
}

/// Nine successful responses and one client-visible failure.
fn send_ten_requests_with_one_failure(gapless: &Gapless, endpoint: &TestEndpoint) {
    for _ in 0..9 {
        assert_eq!(gapless.get("/").status, 200);
    }
    endpoint.set_mode(ResponseMode::Status(503));
    assert_eq!(gapless.get("/").status, 503);
    endpoint.set_mode(ResponseMode::Ok);
}

#[test]
fn requests_consume_route_and_pool_budgets() {
    let (ledger_dir, one) = (LedgerDirectory::new(), TestEndpoint::start("one"));
    let instance = Gapless::start_ready(&with_slo(ledger_dir.config(&[&one], &[])));
    send_ten_requests_with_one_failure(&instance, &one);
    for scope in ["route", "pool"] {
        let availability = objective(&instance, "availability", scope);
        for window in ["1h", "24h", "30d"] {
            let window = &availability["windows"][window];
            assert_eq!((&window["requests"], &window["bad"]), (&10.into(), &1.into()));
        }
        let burn = availability["burn_rates"]["1h"].as_f64().expect("a number");
        assert!((burn - 10.0).abs() < 1e-6, "{burn}");
        assert_eq!(availability["alerts"], serde_json::json!(["slow"]));
        let latency = objective(&instance, "latency", scope);
        assert_eq!(latency["windows"]["1h"]["requests"], 9, "of those that did not fail");
        assert_eq!(latency["windows"]["1h"]["bad"], 0);
    }
    let zone = poll_until("its zone is measured", DEFAULT_TIMEOUT, || {
        let zone = objective(&instance, "availability", "zone");
        (zone["windows"]["1h"]["bad"] == 1).then_some(zone)
    });
    assert_eq!((&zone["name"], &zone["pool"]), (&"here/a".into(), &"web".into()));
    let labels = "{objective=\"availability\",scope=\"route\",name=\"api\",pool=\"\"";
    let burn = poll_until("the metric", DEFAULT_TIMEOUT, || {
        let burn = instance.metric(&format!("gapless_slo_burn_rate{labels},window=\"1h\"}}"));
        (burn > 0.0).then_some(burn)
    });
    assert!((burn - 10.0).abs() < 1e-6, "{burn}");
    let admin = instance.admin.to_string();
    let output = run_gapless(&["slo", "--admin", &admin]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("route api availability") && text.contains("99%"), "{text}");
    assert!(text.contains("90%") && text.contains("-900 %") && text.contains("slow"), "{text}");
}

#[test]
fn budget_survives_restart() {
    let (ledger_dir, one) = (LedgerDirectory::new(), TestEndpoint::start("one"));
    let config = with_slo(ledger_dir.config(&[&one], &[]));
    let mut first = Gapless::start_ready(&config);
    send_ten_requests_with_one_failure(&first, &one);
    first.signal(Signal::TERM);
    assert!(first.wait_for_exit(DEFAULT_TIMEOUT).success());
    let second = Gapless::start_ready(&config);
    send_ten_requests_with_one_failure(&second, &one);
    let window = objective(&second, "availability", "route")["windows"]["30d"].clone();
    assert_eq!((&window["requests"], &window["bad"]), (&20.into(), &2.into()));
}

#[test]
fn invalid_objective_is_refused() {
    let one = TestEndpoint::start("one");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("gapless.toml");
    for (slo, expected_error) in [
        ("availability = \"100%\"", "leaves no budget"),
        ("availability = \"99.9\"", "99.9%"),
        ("availability = \"4%\"", "from 50% to below 100%"),
        ("latency = { share = \"99%\" }", "needs `under`"),
        ("", "neither `availability` nor `latency`"),
    ] {
        let config = ConfigBuilder::new().zone("here/a", &[one.address()]);
        let text = config.pool(&format!("slo = {{ {slo} }}")).text();
        std::fs::write(&file, text).expect("written");
        let output = run_gapless(&["check", file.to_str().expect("text")]);
        let report = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{report}");
        assert!(report.contains(expected_error), "{expected_error} not in {report}");
    }
}

/// PromQL words that precede a parenthesis or join two vectors.
const PROMQL_WORDS: [&str; 7] = ["and", "ignoring", "increase", "window", "scope", "route", "pool"];

#[test]
fn alert_rules_reference_only_existing_metrics() {
    let text = include_str!("../../../config/prometheus/gapless.rules.yml");
    let rules: Value = serde_yaml_ng::from_str(text).expect("YAML");
    let (ledger_dir, one) = (LedgerDirectory::new(), TestEndpoint::start("one"));
    let gapless = Gapless::start_ready(&with_slo(ledger_dir.config(&[&one], &[])));
    let page = poll_until("budgets are told", DEFAULT_TIMEOUT, || {
        let page = gapless.admin_get("/metrics").text();
        page.contains("gapless_slo_burn_rate").then_some(page)
    });
    let mut metric_count = 0;
    for group in rules["groups"].as_array().expect("groups") {
        for rule in group["rules"].as_array().expect("rules") {
            let name = rule["alert"].as_str().expect("a name");
            assert!(rule["labels"]["severity"].is_string(), "{name}");
            assert!(rule["annotations"]["summary"].is_string(), "{name}");
            let expression = rule["expr"].as_str().expect("an expression");
            let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for word in words.filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic())) {
                if let Some(rest) = word.strip_prefix("gapless_") {
                    let is_exported = page.lines().any(|line| {
                        let name = line.split(['{', ' ']).next().unwrap_or_default();
                        name.strip_prefix("gapless_") == Some(rest)
                    });
                    // Written with the first reload.
                    assert!(is_exported || rest == "config_last_reload_ok", "{name}: {word}");
                    metric_count += 1;
                } else {
                    assert!(PROMQL_WORDS.contains(&word), "{name}: {word}");
                }
            }
        }
    }
    assert!(metric_count >= 10, "{metric_count}");
}
