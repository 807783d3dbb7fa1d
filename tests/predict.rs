//! `predict` as it is printed.

use std::path::Path;

use gapless::cli::check::Format;
use gapless::cli::predict::{Options, predict};
use gapless::config;
use serde_json::Value;

fn printed(file: &str, rate: Option<f64>, format: Format) -> String {
    let loaded = config::load(Path::new(file)).expect("a good configuration");
    let options = Options { rate, trials: 60, ..Options::new(format) };
    let mut out = Vec::new();
    predict(&loaded.config, &options, &mut out).expect("written");
    String::from_utf8(out).expect("text")
}

#[test]
fn json_has_a_row_for_every_pool_scope_class_and_traffic() {
    let text = printed("config/multi-region.toml", Some(60.0), Format::Json);
    let object: Value = serde_json::from_str(&text).expect("JSON");
    let rows = object["pools"].as_array().expect("rows");
    assert_eq!(rows.len(), 2 * 2 * 2 * 4);
    for row in rows {
        let number = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name} in {row}"));
        let order = ["best_ms", "median_ms", "p99_ms", "worst_ms"].map(number);
        assert!(order.is_sorted(), "{row}");
        assert!(number("trials") >= 50.0);
        assert!(row["closed_form"]["best_ms"].as_f64() < row["closed_form"]["worst_ms"].as_f64());
        let alone = row["traffic_rps"].is_null();
        assert_eq!(row["within_closed_form"], if alone { Value::Bool(true) } else { Value::Null });
        assert!(["endpoint", "zone"].contains(&row["scope"].as_str().expect("a word")));
    }
}

#[test]
fn text_says_what_the_numbers_mean() {
    let text = printed("config/minimal.toml", None, Format::Text { color: false });
    assert!(text.contains("endpoint silent"), "{text}");
    assert!(text.contains("An endpoint that is silent gets requests for at most 2.0 s"), "{text}");
    assert!(!text.contains("req/s"), "{text}");
    let text = printed("config/minimal.toml", Some(60.0), Format::Text { color: false });
    assert!(text.contains("with 60 req/s 99 times of 100"), "{text}");
}
