//! The configuration: any bytes are accepted or rejected, and every error has a valid place.

use gapless::config::parse_bytes;
use gapless::config::report::{ConfigReport, Severity};

/// Panics if `data` violates the property.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match parse_bytes("gapless.toml", data) {
        Ok(loaded) => {
            assert_eq!(
                loaded.warnings.with_severity(Severity::Error).count(),
                0,
                "accepted with an error"
            );
            assert_located(&loaded.warnings, &text);
        }
        Err(report) => {
            assert!(report.with_severity(Severity::Error).count() > 0, "refused without an error");
            assert_located(&report, &text);
        }
    }
}

fn assert_located(report: &ConfigReport, text: &str) {
    let lines = text.split('\n').count();
    for diagnostic in &report.diagnostics {
        assert!(!diagnostic.message.is_empty() && !diagnostic.help.is_empty(), "{diagnostic:?}");
        let related_locations = diagnostic.also.iter().map(|related| &related.at);
        for at in related_locations.chain([&diagnostic.at]) {
            assert!((1..=lines).contains(&at.line) && at.column >= 1, "{at:?} of {lines} lines");
            assert!(at.excerpt.get(at.underline.clone()).is_some(), "{at:?}");
        }
    }
    for color in [false, true] {
        assert_eq!(report.render(color).is_empty(), report.is_empty());
    }
    serde_json::to_string(report).expect("JSON");
}
