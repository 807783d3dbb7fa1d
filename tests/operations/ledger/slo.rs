//! Objectives: what they are measured by, and how they are told.

use super::{Home, gapless};
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode};
use crate::support::instance::Gapless;
use crate::support::{SOON, until};

use rustix::process::Signal;
use serde_json::Value;

const SLO: &str =
    "slo = { availability = \"99%\", latency = { share = \"90%\", under = \"10s\" } }";

fn promised(config: Config) -> Config {
    config.route(&format!("name = \"api\"\nretry = {{ attempts = 1 }}\n{SLO}")).pool(SLO)
}

fn objective(gapless: &Gapless, kind: &str, scope: &str) -> Value {
    let all = gapless.api("/api/v1/slo")["objectives"].clone();
    let all = all.as_array().expect("a list");
    let found = all.iter().find(|one| one["objective"] == kind && one["scope"] == scope);
    found.unwrap_or_else(|| panic!("no {kind} of {scope} in {all:#?}")).clone()
}

/// Nine good answers and one that a client sees fail.
fn nine_of_ten(gapless: &Gapless, endpoint: &Endpoint) {
    for _ in 0..9 {
        assert_eq!(gapless.get("/").status, 200);
    }
    endpoint.set(Mode::Status(503));
    assert_eq!(gapless.get("/").status, 503);
    endpoint.set(Mode::Ok);
}

#[test]
fn requests_use_up_the_budget_of_their_route_and_pool() {
    let (home, one) = (Home::new(), Endpoint::start("one"));
    let gapless_ = Gapless::start_ready(&promised(home.config(&[&one], &[])));
    nine_of_ten(&gapless_, &one);
    for scope in ["route", "pool"] {
        let availability = objective(&gapless_, "availability", scope);
        for window in ["1h", "24h", "30d"] {
            let window = &availability["windows"][window];
            assert_eq!((&window["requests"], &window["bad"]), (&10.into(), &1.into()));
        }
        let burn = availability["burn_rates"]["1h"].as_f64().expect("a number");
        assert!((burn - 10.0).abs() < 1e-6, "{burn}");
        assert_eq!(availability["alerts"], serde_json::json!(["slow"]));
        let latency = objective(&gapless_, "latency", scope);
        assert_eq!(latency["windows"]["1h"]["requests"], 9, "of those that did not fail");
        assert_eq!(latency["windows"]["1h"]["bad"], 0);
    }
    let zone = until("its zone is measured", SOON, || {
        let zone = objective(&gapless_, "availability", "zone");
        (zone["windows"]["1h"]["bad"] == 1).then_some(zone)
    });
    assert_eq!((&zone["name"], &zone["pool"]), (&"here/a".into(), &"web".into()));
    let labels = "{objective=\"availability\",scope=\"route\",name=\"api\",pool=\"\"";
    let burn = until("the metric", SOON, || {
        let burn = gapless_.metric(&format!("gapless_slo_burn_rate{labels},window=\"1h\"}}"));
        (burn > 0.0).then_some(burn)
    });
    assert!((burn - 10.0).abs() < 1e-6, "{burn}");
    let admin = gapless_.admin.to_string();
    let output = gapless(&["slo", "--admin", &admin]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("route api availability") && text.contains("99%"), "{text}");
    assert!(text.contains("90%") && text.contains("-900 %") && text.contains("slow"), "{text}");
}

#[test]
fn a_budget_outlives_a_restart() {
    let (home, one) = (Home::new(), Endpoint::start("one"));
    let config = promised(home.config(&[&one], &[]));
    let mut first = Gapless::start_ready(&config);
    nine_of_ten(&first, &one);
    first.signal(Signal::TERM);
    assert!(first.wait(SOON).success());
    let second = Gapless::start_ready(&config);
    nine_of_ten(&second, &one);
    let window = objective(&second, "availability", "route")["windows"]["30d"].clone();
    assert_eq!((&window["requests"], &window["bad"]), (&20.into(), &2.into()));
}

#[test]
fn a_promise_that_cannot_be_kept_is_refused() {
    let one = Endpoint::start("one");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("gapless.toml");
    for (slo, said) in [
        ("availability = \"100%\"", "leaves no budget"),
        ("availability = \"99.9\"", "99.9%"),
        ("availability = \"4%\"", "from 50% to below 100%"),
        ("latency = { share = \"99%\" }", "needs `under`"),
        ("", "without a promise"),
    ] {
        let config = Config::new().zone("here/a", &[one.address()]);
        let text = config.pool(&format!("slo = {{ {slo} }}")).text();
        std::fs::write(&file, text).expect("written");
        let output = gapless(&["check", file.to_str().expect("text")]);
        let report = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{report}");
        assert!(report.contains(said), "{said} not in {report}");
    }
}

/// Words of PromQL that are followed by a parenthesis, or stand between two vectors.
const WORDS: [&str; 7] = ["and", "ignoring", "increase", "window", "scope", "route", "pool"];

#[test]
fn the_alert_rules_name_only_metrics_that_there_are() {
    let text = include_str!("../../../config/prometheus/gapless.rules.yml");
    let rules: Value = serde_yaml_ng::from_str(text).expect("YAML");
    let (home, one) = (Home::new(), Endpoint::start("one"));
    let gapless = Gapless::start_ready(&promised(home.config(&[&one], &[])));
    let page = until("budgets are told", SOON, || {
        let page = gapless.ask("/metrics").text();
        page.contains("gapless_slo_burn_rate").then_some(page)
    });
    let mut seen = 0;
    for group in rules["groups"].as_array().expect("groups") {
        for rule in group["rules"].as_array().expect("rules") {
            let name = rule["alert"].as_str().expect("a name");
            assert!(rule["labels"]["severity"].is_string(), "{name}");
            assert!(rule["annotations"]["summary"].is_string(), "{name}");
            let expression = rule["expr"].as_str().expect("an expression");
            let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for word in words.filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic())) {
                if let Some(rest) = word.strip_prefix("gapless_") {
                    let is_there = page.lines().any(|line| {
                        let name = line.split(['{', ' ']).next().unwrap_or_default();
                        name.strip_prefix("gapless_") == Some(rest)
                    });
                    // Written with the first reload only.
                    assert!(is_there || rest == "config_last_reload_ok", "{name}: {word}");
                    seen += 1;
                } else {
                    assert!(WORDS.contains(&word), "{name}: {word}");
                }
            }
        }
    }
    assert!(seen >= 10, "{seen}");
}
