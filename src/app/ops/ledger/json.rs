//! Incidents as JSON, with stable field names that end in their unit, and as comma-separated
//! values.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::app::ops::api::micros_to_rfc3339;

use super::incident_store::IncidentReport;
use super::joined_incidents::{IncidentEntry, IncidentScope};
use super::record::{IncidentRecord, IncidentResolution, PredictedDetection};

/// `/api/v1/incidents`.
#[derive(Debug, Serialize)]
pub struct IncidentsJson {
    /// Joined failures of several zones of a region.
    pub regions: Vec<IncidentJson>,
    /// Joined failures of several endpoints of a zone.
    pub zones: Vec<IncidentJson>,
    /// Failures of single endpoints, oldest first.
    pub endpoints: Vec<IncidentJson>,
}

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
    timeline: IncidentTimelineJson,
    ended: Option<IncidentResolution>,
    detection_ms: f64,
    detection_at_least_ms: f64,
    detection_at_most_ms: f64,
    predicted: Option<IncidentPredictionJson>,
    left_prediction: Option<bool>,
    gap_ms: f64,
    restoration_ms: Option<f64>,
    requests: IncidentRequestsJson,
    budget_share: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    members: Vec<u64>,
}

#[derive(Debug, Serialize)]
struct IncidentTimelineJson {
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
struct IncidentPredictionJson {
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
struct IncidentRequestsJson {
    failed: u64,
    failed_repeatable: u64,
    failed_by: BTreeMap<String, u64>,
    rescued: u64,
    late: u64,
}

impl From<&IncidentReport> for IncidentsJson {
    fn from(report: &IncidentReport) -> Self {
        let of = |scope| report.entries_in_scope(scope).iter().map(IncidentJson::from).collect();
        Self {
            regions: of(IncidentScope::Region),
            zones: of(IncidentScope::Zone),
            endpoints: of(IncidentScope::Endpoint),
        }
    }
}

impl From<&IncidentEntry> for IncidentJson {
    fn from(entry: &IncidentEntry) -> Self {
        let record = &entry.record;
        let zone = (entry.scope != IncidentScope::Region).then(|| record.place.clone());
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
            timeline: IncidentTimelineJson::from(record),
            ended: record.ended,
            detection_ms: us_to_ms(record.detection_us()),
            detection_at_least_ms: us_to_ms(record.min_detection_us()),
            detection_at_most_ms: us_to_ms(record.max_detection_us()),
            predicted: entry.predicted().map(IncidentPredictionJson::from),
            left_prediction: entry.has_exceeded_prediction(),
            gap_ms: us_to_ms(record.gap_us()),
            restoration_ms: record.restoration_us().map(us_to_ms),
            requests: IncidentRequestsJson {
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

impl From<&IncidentRecord> for IncidentTimelineJson {
    fn from(record: &IncidentRecord) -> Self {
        let text = |at: Option<u64>| at.map(micros_to_rfc3339);
        Self {
            onset: micros_to_rfc3339(record.onset_us()),
            onset_earliest: micros_to_rfc3339(record.last_good_us),
            onset_latest: micros_to_rfc3339(record.first_bad_us),
            first_evidence: micros_to_rfc3339(record.first_bad_us),
            suspect: micros_to_rfc3339(record.suspect_us),
            verdict: micros_to_rfc3339(record.verdict_us),
            shift: text(record.shift_us),
            last_failure: text(record.last_failure_us),
            restored: text(record.restored_us),
            ramp_full: text(record.ramp_full_us),
            ended: text(record.ended_us),
        }
    }
}

impl From<&PredictedDetection> for IncidentPredictionJson {
    fn from(predicted: &PredictedDetection) -> Self {
        let simulated = predicted.simulated;
        let closed_form =
            |(best, worst)| ClosedFormJson { best_ms: us_to_ms(best), worst_ms: us_to_ms(worst) };
        Self {
            fault: predicted.fault.clone(),
            rate_rps: predicted.rate_rps,
            median_ms: simulated.map(|simulated| us_to_ms(simulated.median_us)),
            p99_ms: simulated.map(|simulated| us_to_ms(simulated.p99_us)),
            worst_ms: simulated.map(|simulated| us_to_ms(simulated.worst_us)),
            closed_form: predicted.closed_form_us.map(closed_form),
        }
    }
}

/// Microseconds as milliseconds with a fraction.
fn us_to_ms(us: u64) -> f64 {
    us as f64 / 1e3
}

/// Header line of [`render_csv`].
const CSV_HEADER: &str = "id,scope,pool,region,zone,endpoint,class,reason,by,onset_earliest,onset,\
                       first_evidence,suspect,verdict,shift,last_failure,restored,ramp_full,ended,\
                       detection_ms,predicted_median_ms,predicted_p99_ms,predicted_worst_ms,\
                       left_prediction,gap_ms,restoration_ms,failed,failed_repeatable,rescued,late,\
                       budget_share";

/// One line (RFC 4180) for each incident of every scope.
pub fn render_csv(report: &IncidentReport) -> String {
    let mut out = format!("{CSV_HEADER}\r\n");
    for entry in report.all_entries() {
        let json = IncidentJson::from(entry);
        let IncidentTimelineJson {
            onset, onset_earliest, first_evidence, suspect, verdict, ..
        } = &json.timeline;
        let predicted = json.predicted.as_ref();
        let number = |number: Option<f64>| number.map(|ms| ms.to_string());
        let owned_text = |text: &str| Some(text.to_owned());
        let cells: [Option<String>; 31] = [
            Some(json.id.to_string()),
            owned_text(json.scope),
            owned_text(&json.pool),
            owned_text(&json.region),
            json.zone,
            json.endpoint,
            owned_text(&json.class),
            owned_text(&json.reason),
            owned_text(json.by),
            owned_text(onset_earliest),
            owned_text(onset),
            owned_text(first_evidence),
            owned_text(suspect),
            owned_text(verdict),
            json.timeline.shift,
            json.timeline.last_failure,
            json.timeline.restored,
            json.timeline.ramp_full,
            json.ended.map(|resolution| resolution.as_str().to_owned()),
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
        let cells = cells.map(|cell| csv_quoted(cell.as_deref().unwrap_or_default()));
        let _ = write!(out, "{}\r\n", cells.join(","));
    }
    out
}

fn csv_quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\r', '\n']) {
        return format!("\"{}\"", cell.replace('"', "\"\""));
    }
    cell.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_lines_all_have_every_column() {
        let record = IncidentRecord {
            id: 7,
            pool: "a,\"b\"".into(),
            place: "r/a".into(),
            verdict_us: 1_500,
            ..IncidentRecord::default()
        };
        let endpoints = vec![IncidentEntry::of_endpoint(&record)];
        let page = render_csv(&IncidentReport { endpoints, ..IncidentReport::default() });
        let lines: Vec<&str> = page.split_terminator("\r\n").collect();
        assert_eq!(lines.len(), 2);
        let columns = CSV_HEADER.split(',').count();
        assert_eq!(columns, 31);
        assert!(lines[1].starts_with("7,endpoint,\"a,\"\"b\"\"\",r,r/a,,"), "{}", lines[1]);
        assert_eq!(lines[1].split(',').count(), columns + 1, "one comma is a pool's");
    }
}
