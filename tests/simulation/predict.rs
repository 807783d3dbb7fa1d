//! The output of `predict`.

use std::path::Path;

use gapless::cli::check::OutputFormat;
use gapless::cli::predict::false_positives::{LossAssumptions, predict_false_verdicts};
use gapless::cli::predict::{PredictOptions, predict};
use gapless::config;
use serde_json::Value;

fn predict_output(file: &str, rate: Option<f64>, format: OutputFormat) -> String {
    let loaded = config::load(Path::new(file)).expect("a good configuration");
    let options = PredictOptions { rate, trials: 60, ..PredictOptions::new(format) };
    let mut out = Vec::new();
    predict(&loaded.config, &options, &mut out).expect("written");
    String::from_utf8(out).expect("text")
}

fn prediction_rows(text: &str) -> Vec<Value> {
    let object: Value = serde_json::from_str(text).expect("JSON");
    object["pools"].as_array().expect("rows").clone()
}

#[test]
fn json_has_row_for_every_pool_scope_fault_and_traffic() {
    let rows = prediction_rows(&predict_output(
        "config/multi-region.toml",
        Some(60.0),
        OutputFormat::Json,
    ));
    // Ten faults: the probes do not use TLS.
    assert_eq!(rows.len(), 2 * 2 * 2 * 10);
    for row in &rows {
        assert!(["endpoint", "zone"].contains(&row["scope"].as_str().expect("a word")));
        let is_without_traffic = row["traffic_rps"].is_null();
        if let Some(unseen_reason) = row["unseen"].as_str() {
            assert!(row["median_ms"].is_null() && row["trials"] == 0, "{row}");
            assert!(
                ["probe_passes", "needs_traffic", "not_noticed"].contains(&unseen_reason),
                "{row}"
            );
            assert_eq!(
                unseen_reason == "needs_traffic",
                is_without_traffic && unseen_reason != "probe_passes",
                "{row}"
            );
            continue;
        }
        let number = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name} in {row}"));
        let order = ["best_ms", "median_ms", "p99_ms", "worst_ms"].map(number);
        assert!(order.is_sorted(), "{row}");
        assert!(number("trials") >= 50.0);
        let bounds = &row["closed_form"];
        assert!(bounds.is_null() || bounds["best_ms"].as_f64() < bounds["worst_ms"].as_f64());
        assert_eq!(
            row["within_closed_form"],
            if is_without_traffic { Value::Bool(true) } else { Value::Null }
        );
    }
}

#[test]
fn undetected_fault_has_row_with_reason() {
    let rows = prediction_rows(&predict_output("config/two-zones.toml", None, OutputFormat::Json));
    let unseen_reason = |fault: &str| {
        let row = rows.iter().find(|row| row["class"] == fault && row["scope"] == "endpoint");
        row.unwrap_or_else(|| panic!("{fault} has no row"))["unseen"].clone()
    };
    for fault in ["refused", "reset", "hang", "black_hole", "status_all", "slow"] {
        assert_eq!(unseen_reason(fault), Value::Null, "{fault}");
    }
    for fault in ["status_traffic", "errors_30", "cut"] {
        assert_eq!(unseen_reason(fault), "needs_traffic", "{fault}");
    }
    assert_eq!(unseen_reason("wrong_body"), "probe_passes");
    assert!(rows.iter().all(|row| row["class"] != "certificate"), "there is no TLS");
}

#[test]
fn text_output_explains_the_numbers() {
    let text = predict_output("config/two-zones.toml", None, OutputFormat::Text { color: false });
    assert!(text.contains("endpoint hang"), "{text}");
    assert!(text.contains("An endpoint that hangs gets requests for at most 2.0 s"), "{text}");
    assert!(text.contains("Not noticed: status_traffic, errors_30, cut; no probe"), "{text}");
    assert!(!text.contains("req/s"), "{text}");
    let text =
        predict_output("config/two-zones.toml", Some(60.0), OutputFormat::Text { color: false });
    assert!(text.contains("with 60 req/s 99 times of 100"), "{text}");
}

fn false_verdicts_output(losses: &LossAssumptions, format: OutputFormat) -> String {
    let loaded = config::load(Path::new("config/two-zones.toml")).expect("a good configuration");
    let mut out = Vec::new();
    predict_false_verdicts(&loaded.config, &PredictOptions::new(format), losses, &mut out)
        .expect("written");
    String::from_utf8(out).expect("text")
}

#[test]
fn false_verdicts_are_estimated_with_bounds() {
    let lossy = LossAssumptions { hours: Some(1.0), probe_loss: 0.6, traffic_loss: 0.0 };
    let object: Value =
        serde_json::from_str(&false_verdicts_output(&lossy, OutputFormat::Json)).expect("JSON");
    let pool = &object["false_verdicts"][0];
    let number = |name: &str| pool[name].as_f64().unwrap_or_else(|| panic!("{name} in {pool}"));
    assert_eq!((number("virtual_hours"), number("endpoints")), (1.0, 4.0));
    assert!(number("verdicts") > 0.0);
    let bounds = ["at_least_per_endpoint_year", "per_endpoint_year", "at_most_per_endpoint_year"];
    assert!(bounds.map(number).is_sorted() && number("probes_alone_per_endpoint_year") > 0.0);
    let quiet = LossAssumptions { probe_loss: 0.001, ..lossy };
    let text = false_verdicts_output(&quiet, OutputFormat::Text { color: false });
    assert!(text.contains("0 verdicts down, so fewer than"), "{text}");
    assert!(text.contains("fewer than 1.0e-6 per endpoint and year"), "{text}");
}
