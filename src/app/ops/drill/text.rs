//! A drill as plain text.

use std::fmt::Write;

use super::json::DrillJson;

/// One line of the list of drills.
pub fn summary_line(drill: &DrillJson) -> String {
    let state = drill.outcome.unwrap_or(drill.stage);
    format!(
        "{:>4}  {:<22} {:<24} {:<16} {:>3} %  {}\n",
        drill.id,
        state,
        drill.zone,
        drill.fault,
        drill.share_percent,
        drill.timeline.began()
    )
}

pub fn render_report(drill: &DrillJson) -> String {
    let mut page = String::new();
    let state = drill.outcome.unwrap_or(drill.stage);
    let _ = writeln!(page, "Drill {}: {} in {} — {state}", drill.id, drill.fault, drill.zone);
    let mut line = |label: &str, text: &str| {
        let _ = writeln!(page, "  {label:<12}{text}");
    };
    if let Some(why) = &drill.why {
        line("why", why);
    }
    line("scope", &scope_text(drill));
    line("predicted", &prediction_text(drill));
    line("measured", &measurement_text(drill));
    let requests = &drill.requests;
    line(
        "requests",
        &format!(
            "{} taken of {} ({}), {} tries met the fault",
            requests.taken,
            requests.concerned,
            requests.taken_percent.map_or_else(|| "-".to_owned(), |part| format!("{part:.1} %")),
            requests.met
        ),
    );
    line(
        "clients",
        &format!(
            "{} failed ({} could have been sent again; {} may), {} rescued, {} of them late",
            requests.failed,
            requests.resendable,
            drill.allowed_failures,
            requests.rescued,
            requests.late
        ),
    );
    page
}

/// What the drill covers: share, filters, duration and origin.
pub(super) fn scope_text(drill: &DrillJson) -> String {
    let mut text = format!("{} % of the requests", drill.share_percent);
    let mut also = |what: &str, value: &Option<String>| {
        if let Some(value) = value {
            let _ = write!(text, ", {what} {value}");
        }
    };
    also("with", &drill.matching);
    also("to pool", &drill.pool);
    also("at endpoint", &drill.endpoint);
    let _ = write!(
        text,
        ", for {:.0} s, by {}; {:.0} requests/s before",
        drill.for_ms / 1e3,
        drill.by,
        drill.load_rps
    );
    text
}

/// Rounded milliseconds, or `-`.
pub(super) fn ms_text(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0} ms"))
}

pub(super) fn prediction_text(drill: &DrillJson) -> String {
    let Some(predicted) = &drill.predicted else { return "nothing yet".to_owned() };
    if let Some(unseen) = predicted.unseen {
        return format!("{}: no window ({unseen})", predicted.class);
    }
    format!(
        "detection {} (median), {} (p99), {} at most: {} with {:.0} requests/s",
        ms_text(predicted.median_ms),
        ms_text(predicted.p99_ms),
        ms_text(predicted.worst_ms),
        predicted.class,
        predicted.traffic_rps
    )
}

pub(super) fn measurement_text(drill: &DrillJson) -> String {
    let measured = &drill.measured;
    format!(
        "detection {}, shift {}, gap {}",
        ms_text(measured.detection_ms),
        ms_text(measured.shift_ms),
        ms_text(measured.gap_ms)
    )
}
