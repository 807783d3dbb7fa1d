//! A drill as one self-contained page of HTML, without scripts, fonts or images from elsewhere.

use std::fmt::Write;

use super::json::{DrillJson, DrillSampleJson};
use super::text::{measurement_text, prediction_text, scope_text};

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c1e21;--dim:#667;--paper:#fff;--line:#d5d8dd;--good:#1a7f4b;\
--bad:#c0392b;--calm:#2f6fb3;--warn:#b7791f}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--dim:#9aa3ad;--paper:#15181c;--line:#333a42;\
--good:#4cc38a;--bad:#ff7b6b;--calm:#74b0ee;--warn:#e5b567}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:60rem;\
margin:2rem auto;padding:0 1rem}h1{font-size:1.4rem;margin:0 0 .2rem}.outcome{font-weight:600}\
.SUCCEEDED{color:var(--good)}.FAILED,.CAPACITY_CHECK_FAILED{color:var(--bad)}.INTERRUPTED{color:var(--warn)}\
p{margin:.2rem 0 1rem;color:var(--dim)}table{border-collapse:collapse;width:100%;margin:1rem 0}\
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}\
th{width:9rem;font-weight:500;color:var(--dim)}svg{width:100%;height:auto;display:block}\
svg text{fill:var(--dim);font:11px system-ui,sans-serif}";

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 26.0;

/// Limit of columns in the chart.
const MAX_CHART_COLUMNS: usize = 60;

pub fn render_html(drill: &DrillJson) -> String {
    let state = drill.outcome.unwrap_or(drill.stage);
    let title = escape_html(&format!("Drill {}: {} in {}", drill.id, drill.fault, drill.zone));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style>\n<h1>{title} — <span class=\"outcome {state}\">{state}</span></h1>\n"
    );
    let _ = writeln!(page, "<p>{}</p>", escape_html(drill.why.as_deref().unwrap_or("under way")));
    page.push_str(&render_chart(drill));
    page.push_str("<table>");
    let requests = &drill.requests;
    let taken = requests.taken_percent.map_or_else(String::new, |part| format!(" ({part:.1} %)"));
    let rows = [
        ("Scope", scope_text(drill)),
        ("Predicted", prediction_text(drill)),
        ("Measured", measurement_text(drill)),
        ("Requests", format!("{} taken of {}{taken}", requests.taken, requests.concerned)),
        ("Tries", format!("{} met the fault", requests.met)),
        (
            "Clients",
            format!(
                "{} saw a failure ({} could have been sent again; {} may fail), {} were rescued, {} of them late",
                requests.failed,
                requests.resendable,
                drill.allowed_failures,
                requests.rescued,
                requests.late
            ),
        ),
        ("Began", drill.timeline.began().to_owned()),
    ];
    for (label, text) in rows {
        let _ = writeln!(page, "<tr><th>{label}</th><td>{}</td></tr>", escape_html(&text));
    }
    page.push_str("</table></html>\n");
    page
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Counts of one column of the chart.
#[derive(Clone, Copy, Default)]
struct ChartColumn {
    taken: u64,
    failed: u64,
    rescued: u64,
}

/// Requests over time as stacked columns, with marks for the verdict, the last failure and the
/// prediction.
fn render_chart(drill: &DrillJson) -> String {
    let Some(end_ms) = drill.samples.last().map(|last| last.at_ms).filter(|end| *end > 0.0) else {
        return String::new();
    };
    let columns = chart_columns(&drill.samples, end_ms);
    let most = columns.iter().map(|column| column.taken).max().unwrap_or(0).max(1);
    let (plot_width, plot_height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let x = |ms: f64| LEFT + plot_width * ms / end_ms;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Requests over time\">\n"
    );
    let width = plot_width / columns.len() as f64;
    for (index, column) in columns.iter().enumerate() {
        let mut bottom = HEIGHT - BOTTOM;
        let good = column.taken.saturating_sub(column.failed + column.rescued);
        for (count, color) in [(good, "calm"), (column.rescued, "good"), (column.failed, "bad")] {
            let height = plot_height * count as f64 / most as f64;
            bottom -= height;
            if count > 0 {
                let left = LEFT + width * index as f64;
                let _ = writeln!(
                    svg,
                    "<rect x=\"{left:.1}\" y=\"{bottom:.1}\" width=\"{:.1}\" height=\"{height:.1}\" \
                     style=\"fill:var(--{color})\"/>",
                    (width - 1.0).max(0.5)
                );
            }
        }
    }
    push_axes(&mut svg, end_ms, most, end_ms / columns.len() as f64);
    let measured = &drill.measured;
    let predicted = drill.predicted.as_ref().and_then(|predicted| predicted.worst_ms);
    let marks = [
        ("predicted at most", predicted, "warn", 12.0),
        ("verdict", measured.detection_ms, "ink", 25.0),
        ("last failure", measured.gap_ms.filter(|gap| *gap > 0.0), "bad", 38.0),
    ];
    for (label, at_ms, color, y) in marks {
        let Some(at) = at_ms.filter(|at| *at <= end_ms).map(x) else { continue };
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.0}\" y2=\"{:.0}\" \
             style=\"stroke:var(--{color});stroke-dasharray:4 3\"/>\
             <text x=\"{:.1}\" y=\"{y}\">{label} {:.0} ms</text>",
            y - 8.0,
            HEIGHT - BOTTOM,
            (at + 4.0).min(WIDTH - 130.0),
            at_ms.unwrap_or_default()
        );
    }
    svg.push_str("</svg>\n<p>Requests of the drill: answered at once (blue), rescued (green), failed (red).</p>\n");
    svg
}

fn push_axes(svg: &mut String, end_ms: f64, most: u64, column_ms: f64) {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    let _ = writeln!(
        svg,
        "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\" style=\"stroke:var(--line)\"/>"
    );
    for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let x = LEFT + (right - LEFT) * part;
        let anchor = if part == 1.0 { "end" } else { "middle" };
        let _ = writeln!(
            svg,
            "<text x=\"{x:.0}\" y=\"{:.0}\" text-anchor=\"{anchor}\">{:.1} s</text>",
            HEIGHT - 8.0,
            end_ms * part / 1e3
        );
    }
    let rate = most as f64 * 1e3 / column_ms;
    let _ = writeln!(svg, "<text x=\"2\" y=\"{:.0}\">{rate:.0}/s</text>", TOP + 4.0);
}

fn chart_columns(samples: &[DrillSampleJson], end_ms: f64) -> Vec<ChartColumn> {
    let count = MAX_CHART_COLUMNS.min(samples.len().saturating_sub(1)).max(1);
    let mut columns = vec![ChartColumn::default(); count];
    for pair in samples.windows(2) {
        let [before, after] = pair else { continue };
        let middle = (before.at_ms + after.at_ms) / 2.0;
        let place = ((middle / end_ms * count as f64) as usize).min(count - 1);
        let column = &mut columns[place];
        column.taken += after.taken.saturating_sub(before.taken);
        column.failed += after.failed.saturating_sub(before.failed);
        column.rescued += after.rescued.saturating_sub(before.rescued);
    }
    columns
}
