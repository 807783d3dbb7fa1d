//! Incidents as plain text: a table with one line each, and the timeline of single ones.

use std::fmt::Write;
use std::time::Duration;

use crate::app::ops::api::micros_to_rfc3339;
use crate::app::ops::explain::text::duration_text;

use super::incident_store::IncidentReport;
use super::joined_incidents::{IncidentEntry, IncidentScope};
use super::record::{IncidentRecord, PredictedDetection};

/// Space between two columns.
const COLUMN_GAP: &str = "  ";

const TABLE_HEADER: [&str; 10] = [
    "ID",
    "ONSET (UTC)",
    "WHERE",
    "REASON",
    "DETECTED",
    "PREDICTED P99/WORST",
    "GAP",
    "FAILED",
    "RESCUED/LATE",
    "RESTORED",
];

/// Columns of numbers.
const RIGHT_ALIGNED_COLUMNS: [usize; 6] = [0, 4, 5, 6, 7, 8];

/// A table of incidents, newest first. Endpoints that failed together share one line.
pub fn render_table(report: &IncidentReport) -> String {
    let top_level = report.top_level();
    if top_level.is_empty() {
        return "no incidents\n".to_owned();
    }
    let rows: Vec<[String; 10]> = top_level.iter().map(|entry| table_row(entry)).collect();
    let width = |column: usize| {
        let widest = rows.iter().map(|row| row[column].chars().count()).max();
        widest.unwrap_or(0).max(TABLE_HEADER[column].len())
    };
    let widths: Vec<usize> = (0..TABLE_HEADER.len()).map(width).collect();
    let mut out = String::new();
    push_line(&mut out, &TABLE_HEADER, &widths);
    for row in &rows {
        push_line(&mut out, &row.each_ref().map(String::as_str), &widths);
    }
    if top_level.iter().any(|entry| entry.has_exceeded_prediction() == Some(true)) {
        out.push_str("! took longer than every prediction\n");
    }
    out
}

fn push_line(out: &mut String, cells: &[&str; 10], widths: &[usize]) {
    let mut line = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if column > 0 {
            line.push_str(COLUMN_GAP);
        }
        let _ = if RIGHT_ALIGNED_COLUMNS.contains(&column) {
            write!(line, "{cell:>width$}")
        } else {
            write!(line, "{cell:<width$}")
        };
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

fn table_row(entry: &IncidentEntry) -> [String; 10] {
    let record = &entry.record;
    let mark = if entry.has_exceeded_prediction() == Some(true) { "!" } else { "" };
    let predicted = entry.predicted();
    let p99 = predicted.and_then(|predicted| predicted.simulated).map(|quantiles| quantiles.p99_us);
    let worst = predicted.and_then(PredictedDetection::worst_us);
    let shown = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), time_text);
    let gap =
        record.last_failure_us.map_or_else(|| "none".to_owned(), |_| time_text(record.gap_us()));
    [
        record.id.to_string(),
        short_time(record.onset_us()),
        place_text(entry),
        record.reason.clone(),
        format!("{mark}{}", time_text(record.detection_us())),
        format!("{} / {}", shown(p99), shown(worst)),
        gap,
        record.failed.to_string(),
        format!("{}/{}", record.rescued, record.late),
        restored_text(record),
    ]
}

fn place_text(entry: &IncidentEntry) -> String {
    let record = &entry.record;
    match (entry.scope, &record.endpoint) {
        (IncidentScope::Endpoint, Some(endpoint)) => format!("{} {endpoint}", record.pool),
        (scope, _) => {
            let count = entry.members.len();
            format!("{} {} {} ({count} endpoints)", record.pool, scope.as_str(), record.place)
        }
    }
}

fn restored_text(record: &IncidentRecord) -> String {
    match (record.restoration_us(), record.ended) {
        (Some(after), _) => format!("after {}", time_text(after)),
        (None, Some(resolution)) => resolution.as_str().to_owned(),
        (None, None) => "still down".to_owned(),
    }
}

/// The end of an incident, for use in a sentence.
fn outcome_text(record: &IncidentRecord) -> String {
    let how = restored_text(record);
    if record.restored_us.is_some() { format!("restored {how}") } else { how }
}

/// The timelines of all incidents that are not members of another one.
pub fn render_timelines(report: &IncidentReport) -> String {
    let top_level = report.top_level();
    if top_level.is_empty() {
        return "no such incident\n".to_owned();
    }
    let timelines: Vec<String> =
        top_level.iter().map(|entry| render_timeline(entry, report)).collect();
    timelines.join("\n")
}

fn render_timeline(entry: &IncidentEntry, report: &IncidentReport) -> String {
    let record = &entry.record;
    let mut out =
        format!("incident {}: {}, {}\n\n", record.id, place_text(entry), outcome_text(record));
    let mut push_labelled = |label: &str, text: &str| {
        let _ = writeln!(out, "  {label:<16}{text}");
    };
    push_labelled("reason", &format!("{} ({})", record.reason, record.class));
    push_labelled("verdict by", if record.by_traffic { "traffic" } else { "probes" });
    push_labelled("where", &format!("{} in pool {}", record.place, record.pool));
    let onset = record.onset_us();
    let mut at = |label: &str, us: Option<u64>, detail: &str| {
        let Some(us) = us else { return };
        let offset = if us >= onset {
            format!("+{}", time_text(us - onset))
        } else {
            format!("-{}", time_text(onset - us))
        };
        let line = format!("  {label:<16}{}  {offset:>10}  {detail}", micros_to_rfc3339(us));
        let _ = writeln!(out, "{}", line.trim_end());
    };
    at("last good", Some(record.last_good_us), "the failure began after this");
    at("onset", Some(onset), "estimated: the middle");
    at("first evidence", Some(record.first_bad_us), "the exchange that failed first began");
    at("suspect", Some(record.suspect_us), "");
    at("verdict", Some(record.verdict_us), "");
    at("shift", record.shift_us, "traffic moved away");
    at("last failure", record.last_failure_us, "the last one that a client saw");
    at("restored", record.restored_us, "");
    at("ramp full", record.ramp_full_us, "full share again");
    if record.restored_us.is_none() {
        at("ended", record.ended_us, record.ended.map_or("", |resolution| resolution.as_str()));
    }
    push_measurements(entry, &mut out);
    if !entry.members.is_empty() {
        let _ = writeln!(out, "\n  endpoints");
        let is_in = |one: &&IncidentEntry| entry.members.contains(&one.record.id);
        for member in report.endpoints.iter().filter(is_in) {
            let record = &member.record;
            let endpoint = record.endpoint.as_deref().unwrap_or_default();
            let (detected, back) = (time_text(record.detection_us()), outcome_text(record));
            let _ = writeln!(
                out,
                "    {:>6}  {endpoint}  {}, detected after {detected}, {back}",
                record.id, record.reason
            );
        }
    }
    out
}

fn push_measurements(entry: &IncidentEntry, out: &mut String) {
    let record = &entry.record;
    let [detected, least, most] =
        [record.detection_us(), record.min_detection_us(), record.max_detection_us()]
            .map(time_text);
    let _ = writeln!(
        out,
        "\n  {:<16}{detected}, {least} to {most}: the onset is known as an interval",
        "detection"
    );
    if let Some(predicted) = entry.predicted() {
        let traffic = predicted.rate_rps.map_or_else(
            || "by probes alone".to_owned(),
            |rate| format!("with {rate} requests a second"),
        );
        let simulated = predicted.simulated.map_or_else(
            || "no simulation".to_owned(),
            |quantiles| {
                let (median, p99) = (time_text(quantiles.median_us), time_text(quantiles.p99_us));
                format!("median {median}, p99 {p99}, worst {}", time_text(quantiles.worst_us))
            },
        );
        let _ = writeln!(out, "  {:<16}{}: {simulated}, {traffic}", "predicted", predicted.fault);
        if let Some((best, worst)) = predicted.closed_form_us {
            let (best, worst) = (time_text(best), time_text(worst));
            let _ = writeln!(out, "  {:<16}{best} to {worst}, by probes alone", "closed form");
        }
        if entry.has_exceeded_prediction() == Some(true) {
            let _ = writeln!(out, "  {:<16}longer than every prediction", "!");
        }
    }
    let gap = record.last_failure_us.map(|_| time_text(record.gap_us()));
    let gap = gap.unwrap_or_else(|| "none: no client saw a failure".to_owned());
    let _ = writeln!(out, "  {:<16}{gap}", "failover gap");
    let mut failed = format!("{} failed", record.failed);
    if record.failed > 0 {
        let by: Vec<String> = record
            .failed_by
            .iter()
            .map(|(failure_kind, count)| format!("{count} {failure_kind}"))
            .collect();
        let repeatable = record.failed_repeatable;
        let _ = write!(failed, " ({}; {repeatable} could be sent again)", by.join(", "));
    }
    if let Some(share) = entry.budget_share {
        let _ = writeln!(out, "  {:<16}{:.1} % of thirty days'", "error budget", share * 100.0);
    }
    let (rescued, late) = (record.rescued, record.late);
    let _ = writeln!(out, "  {:<16}{failed}, {rescued} rescued, {late} of them late", "requests");
}

/// `2026-01-31 12:00:00`.
fn short_time(us: u64) -> String {
    let text = micros_to_rfc3339(us);
    text.get(..19).map_or_else(String::new, |text| text.replace('T', " "))
}

fn time_text(us: u64) -> String {
    duration_text(Duration::from_micros(us))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::ops::ledger::record::{DetectionQuantiles, IncidentResolution};

    fn incident_report() -> IncidentReport {
        let record = |id: u64, place: &str| IncidentRecord {
            id,
            pool: "web".into(),
            place: place.into(),
            endpoint: Some(format!("10.0.0.{id}:80")),
            class: "refused".into(),
            reason: "connect refused".into(),
            last_good_us: 1_700_000_000_000_000,
            first_bad_us: 1_700_000_000_100_000,
            suspect_us: 1_700_000_000_101_000,
            verdict_us: 1_700_000_000_200_000,
            predicted_zone: Some(PredictedDetection {
                fault: "refused".into(),
                closed_form_us: Some((1_000, 90_000)),
                simulated: Some(DetectionQuantiles {
                    median_us: 10_000,
                    p99_us: 80_000,
                    worst_us: 85_000,
                }),
                ..PredictedDetection::default()
            }),
            failed: 2,
            failed_by: [("reset".to_owned(), 2)].into(),
            last_failure_us: Some(1_700_000_000_140_000),
            ..IncidentRecord::default()
        };
        let mut records = [record(1, "r/a"), record(2, "r/a"), record(3, "q/b")];
        records[2].close(IncidentResolution::Restored, Some(1_700_000_001_050_000));
        IncidentReport::from_records(records.iter(), Duration::from_secs(1))
    }

    #[test]
    fn table_joins_endpoints_that_failed_together() {
        let table = render_table(&incident_report());
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4, "{table}");
        assert!(lines[0].starts_with("ID  ONSET (UTC)"), "{table}");
        assert!(lines[1].contains("web zone r/a (2 endpoints)"), "{table}");
        assert!(lines[1].contains("!150 ms") && lines[1].contains("80 ms / 90 ms"), "{table}");
        assert!(lines[1].ends_with("still down"), "{table}");
        assert!(lines[2].contains("2023-11-14 22:13:20") && lines[2].ends_with("after 1.0 s"));
        assert!(lines[3].starts_with('!'), "{table}");
        let column = lines[0].find("REASON").expect("a column");
        assert!(lines[1..3].iter().all(|line| line[column..].starts_with("connect refused")));
    }

    #[test]
    fn timeline_of_one_incident_is_in_order() {
        let mut report = incident_report();
        report.endpoints.retain(|one| one.record.id != 3);
        let timeline = render_timelines(&report);
        let labels =
            ["last good", "onset", "first evidence", "suspect", "verdict  ", "last failure", "gap"];
        let places: Vec<usize> = labels
            .iter()
            .map(|label| timeline.find(label).unwrap_or_else(|| panic!("{label} in\n{timeline}")))
            .collect();
        assert!(places.is_sorted(), "{timeline}");
        assert!(timeline.contains("longer than every prediction"), "{timeline}");
        assert!(timeline.contains("4 failed (4 reset; 0 could be sent again)"), "{timeline}");
        assert!(timeline.contains("10.0.0.2:80"), "{timeline}");
        assert_eq!(render_timelines(&IncidentReport::default()), "no such incident\n");
    }
}
