//! Incidents for programs: JSON with stable names and units in them, and comma-separated values.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::app::api::time_text;

use super::book::Told;
use super::entry::{Entry, Scope};
use super::record::{Fate, Predicted, Record};

/// `/api/v1/incidents`.
#[derive(Debug, Serialize)]
pub struct IncidentsJson {
    /// Failures of several zones of a region together.
    pub regions: Vec<IncidentJson>,
    /// Failures of several endpoints of a zone together.
    pub zones: Vec<IncidentJson>,
    /// Failures of single endpoints, oldest first.
    pub endpoints: Vec<IncidentJson>,
}

/// One incident.
#[derive(Debug, Serialize)]
pub struct IncidentJson {
    id: u64,
    scope: &'static str,
    pool: String,
    region: String,
    zone: Option<String>,
    endpoint: Option<String>,
    class: String,
    reason: String,
    by: &'static str,
    timeline: TimelineJson,
    ended: Option<Fate>,
    detection_ms: f64,
    detection_at_most_ms: f64,
    predicted: Option<PredictedJson>,
    left_prediction: Option<bool>,
    gap_ms: f64,
    restoration_ms: Option<f64>,
    requests: RequestsJson,
    budget_share: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    members: Vec<u64>,
}

#[derive(Debug, Serialize)]
struct TimelineJson {
    onset: String,
    onset_earliest: String,
    onset_latest: String,
    first_evidence: String,
    suspect: String,
    verdict: String,
    shift: Option<String>,
    last_failure: Option<String>,
    restored: Option<String>,
    ramp_full: Option<String>,
    ended: Option<String>,
}

#[derive(Debug, Serialize)]
struct PredictedJson {
    fault: String,
    rate_rps: Option<u32>,
    median_ms: Option<f64>,
    p99_ms: Option<f64>,
    worst_ms: Option<f64>,
    closed_form: Option<ClosedFormJson>,
}

#[derive(Debug, Serialize)]
struct ClosedFormJson {
    best_ms: f64,
    worst_ms: f64,
}

#[derive(Debug, Serialize)]
struct RequestsJson {
    failed: u64,
    failed_repeatable: u64,
    failed_by: BTreeMap<String, u64>,
    rescued: u64,
    late: u64,
}

impl From<&Told> for IncidentsJson {
    fn from(told: &Told) -> Self {
        let of = |scope| told.of_scope(scope).iter().map(IncidentJson::from).collect();
        Self { regions: of(Scope::Region), zones: of(Scope::Zone), endpoints: of(Scope::Endpoint) }
    }
}

impl From<&Entry> for IncidentJson {
    fn from(entry: &Entry) -> Self {
        let record = &entry.record;
        let zone = (entry.scope != Scope::Region).then(|| record.place.clone());
        Self {
            id: record.id,
            scope: entry.scope.as_str(),
            pool: record.pool.clone(),
            region: record.region().to_owned(),
            zone,
            endpoint: record.endpoint.clone(),
            class: record.class.clone(),
            reason: record.reason.clone(),
            by: if record.by_traffic { "traffic" } else { "probes" },
            timeline: TimelineJson::from(record),
            ended: record.ended,
            detection_ms: ms(record.detection_us()),
            detection_at_most_ms: ms(record.detection_at_most_us()),
            predicted: entry.predicted().map(PredictedJson::from),
            left_prediction: entry.left_prediction(),
            gap_ms: ms(record.gap_us()),
            restoration_ms: record.restoration_us().map(ms),
            requests: RequestsJson {
                failed: record.failed,
                failed_repeatable: record.failed_repeatable,
                failed_by: record.failed_by.clone(),
                rescued: record.rescued,
                late: record.late,
            },
            budget_share: entry.budget_share,
            members: entry.members.clone(),
        }
    }
}

impl From<&Record> for TimelineJson {
    fn from(record: &Record) -> Self {
        let text = |at: Option<u64>| at.map(time_text);
        Self {
            onset: time_text(record.onset_us()),
            onset_earliest: time_text(record.last_good_us),
            onset_latest: time_text(record.first_bad_us),
            first_evidence: time_text(record.first_bad_us),
            suspect: time_text(record.suspect_us),
            verdict: time_text(record.verdict_us),
            shift: text(record.shift_us),
            last_failure: text(record.last_failure_us),
            restored: text(record.restored_us),
            ramp_full: text(record.ramp_full_us),
            ended: text(record.ended_us),
        }
    }
}

impl From<&Predicted> for PredictedJson {
    fn from(predicted: &Predicted) -> Self {
        let simulated = predicted.simulated;
        let closed_form = |(best, worst)| ClosedFormJson { best_ms: ms(best), worst_ms: ms(worst) };
        Self {
            fault: predicted.fault.clone(),
            rate_rps: predicted.rate_rps,
            median_ms: simulated.map(|simulated| ms(simulated.median_us)),
            p99_ms: simulated.map(|simulated| ms(simulated.p99_us)),
            worst_ms: simulated.map(|simulated| ms(simulated.worst_us)),
            closed_form: predicted.closed_form_us.map(closed_form),
        }
    }
}

/// Milliseconds with a fraction.
fn ms(us: u64) -> f64 {
    us as f64 / 1e3
}

/// The first line of [`csv`].
const COLUMNS: &str = "id,scope,pool,region,zone,endpoint,class,reason,by,onset_earliest,onset,\
                       first_evidence,suspect,verdict,shift,last_failure,restored,ramp_full,ended,\
                       detection_ms,predicted_median_ms,predicted_p99_ms,predicted_worst_ms,\
                       left_prediction,gap_ms,restoration_ms,failed,failed_repeatable,rescued,late,\
                       budget_share";

/// One line for each incident (RFC 4180), of every scope.
#[must_use]
pub fn csv(told: &Told) -> String {
    let mut out = format!("{COLUMNS}\r\n");
    for entry in told.all() {
        let json = IncidentJson::from(entry);
        let TimelineJson { onset, onset_earliest, first_evidence, suspect, verdict, .. } =
            &json.timeline;
        let predicted = json.predicted.as_ref();
        let number = |number: Option<f64>| number.map(|ms| ms.to_string());
        let given = |text: &str| Some(text.to_owned());
        let cells: [Option<String>; 31] = [
            Some(json.id.to_string()),
            given(json.scope),
            given(&json.pool),
            given(&json.region),
            json.zone,
            json.endpoint,
            given(&json.class),
            given(&json.reason),
            given(json.by),
            given(onset_earliest),
            given(onset),
            given(first_evidence),
            given(suspect),
            given(verdict),
            json.timeline.shift,
            json.timeline.last_failure,
            json.timeline.restored,
            json.timeline.ramp_full,
            json.ended.map(|fate| fate.as_str().to_owned()),
            Some(json.detection_ms.to_string()),
            number(predicted.and_then(|predicted| predicted.median_ms)),
            number(predicted.and_then(|predicted| predicted.p99_ms)),
            number(predicted.and_then(|predicted| predicted.worst_ms)),
            json.left_prediction.map(|left| left.to_string()),
            Some(json.gap_ms.to_string()),
            number(json.restoration_ms),
            Some(json.requests.failed.to_string()),
            Some(json.requests.failed_repeatable.to_string()),
            Some(json.requests.rescued.to_string()),
            Some(json.requests.late.to_string()),
            number(json.budget_share),
        ];
        let cells = cells.map(|cell| quoted(cell.as_deref().unwrap_or_default()));
        let _ = write!(out, "{}\r\n", cells.join(","));
    }
    out
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\r', '\n']) {
        return format!("\"{}\"", cell.replace('"', "\"\""));
    }
    cell.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_every_column() {
        let record = Record {
            id: 7,
            pool: "a,\"b\"".into(),
            place: "r/a".into(),
            verdict_us: 1_500,
            ..Record::default()
        };
        let endpoints = vec![Entry::of_endpoint(&record)];
        let page = csv(&Told { endpoints, ..Told::default() });
        let lines: Vec<&str> = page.split_terminator("\r\n").collect();
        assert_eq!(lines.len(), 2);
        let columns = COLUMNS.split(',').count();
        assert_eq!(columns, 31);
        assert!(lines[1].starts_with("7,endpoint,\"a,\"\"b\"\"\",r,r/a,,"), "{}", lines[1]);
        assert_eq!(lines[1].split(',').count(), columns + 1, "one comma is a pool's");
    }
}
