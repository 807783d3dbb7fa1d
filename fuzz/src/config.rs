//! The configuration: any bytes are accepted or refused, and whoever is refused is told where.

use gapless::config::parse_bytes;
use gapless::config::report::{Report, Severity};

/// Panics if `data` breaks it.
pub fn holds(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match parse_bytes("gapless.toml", data) {
        Ok(loaded) => {
            assert_eq!(loaded.warnings.of(Severity::Error).count(), 0, "accepted with an error");
            is_located(&loaded.warnings, &text);
        }
        Err(report) => {
            assert!(report.of(Severity::Error).count() > 0, "refused without an error");
            is_located(&report, &text);
        }
    }
}

fn is_located(report: &Report, text: &str) {
    let lines = text.split('\n').count();
    for diagnostic in &report.diagnostics {
        assert!(!diagnostic.message.is_empty() && !diagnostic.mend.is_empty(), "{diagnostic:?}");
        let also = diagnostic.also.iter().map(|related| &related.at);
        for at in also.chain([&diagnostic.at]) {
            assert!((1..=lines).contains(&at.line) && at.column >= 1, "{at:?} of {lines} lines");
            assert!(at.excerpt.get(at.underline.clone()).is_some(), "{at:?}");
        }
    }
    for color in [false, true] {
        assert_eq!(report.render(color).is_empty(), report.is_empty());
    }
    serde_json::to_string(report).expect("JSON");
}
