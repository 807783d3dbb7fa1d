//! The stored form of an incident. Times are wall-clock times, so that another process can read
//! them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::app::ops::api::WallClock;
use crate::logic::incident::client_failure::ClientFailureKind;
use crate::logic::incident::{Incident, IncidentEnd};

/// How an incident ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentResolution {
    /// The verdict on the endpoint returned to up.
    Restored,
    /// The endpoint was removed from the configuration.
    Removed,
    /// The process that observed it ended first, so its end is unknown.
    Interrupted,
}

impl IncidentResolution {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::Removed => "removed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// The detection window that the configuration at that time predicts, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PredictedDetection {
    /// The simulated failure.
    pub fault: String,
    /// Simulated requests per second over the pool, rounded from the measured rate.
    pub rate_rps: Option<u32>,
    /// Best and worst case by probes alone, in closed form; absent where probes cannot detect the
    /// failure.
    pub closed_form_us: Option<(u64, u64)>,
    /// Simulated window; absent until the simulation ends, and where it detects nothing.
    pub simulated: Option<DetectionQuantiles>,
}

/// Quantiles of a simulated detection window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectionQuantiles {
    /// Half of the trials are at most this long.
    pub median_us: u64,
    /// 99 % of the trials are at most this long.
    pub p99_us: u64,
    pub worst_us: u64,
}

impl PredictedDetection {
    /// The longest predicted window.
    pub fn worst_us(&self) -> Option<u64> {
        let closed = self.closed_form_us.map(|(_, worst)| worst);
        self.simulated.map(|simulated| simulated.worst_us).max(closed)
    }
}

/// Times in microseconds since 1970. Fields of later versions have defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IncidentRecord {
    /// Counts up over all processes with the same state directory.
    pub id: u64,
    pub pool: String,
    /// `region/zone`, or the region of several joined zones.
    pub place: String,
    /// `address:port`; absent for joined incidents.
    pub endpoint: Option<String>,
    /// Class of the failure.
    pub class: String,
    /// Failure that the verdict is based on.
    pub reason: String,
    /// Whether the verdict is based on traffic rather than on probes.
    pub by_traffic: bool,
    /// Time of the last good evidence.
    pub last_good_us: u64,
    /// Start of the exchange that became the first bad evidence.
    pub first_bad_us: u64,
    /// Time of the first bad evidence.
    pub suspect_us: u64,
    /// Time of the verdict.
    pub verdict_us: u64,
    /// Time of the verdict on its zone, if that was first.
    pub zone_verdict_us: Option<u64>,
    /// Publication of the snapshot that moves the traffic.
    pub shift_us: Option<u64>,
    /// Time of the last failure that a client saw.
    pub last_failure_us: Option<u64>,
    /// Time of the verdict up.
    pub restored_us: Option<u64>,
    /// Time at which the endpoint had its full share again.
    pub ramp_full_us: Option<u64>,
    pub ended: Option<IncidentResolution>,
    /// Time of its end, for any resolution.
    pub ended_us: Option<u64>,
    /// Time of the last observation.
    pub seen_us: u64,
    /// Requests whose clients saw the failure.
    pub failed: u64,
    /// Failed requests that a retry could have saved.
    pub failed_repeatable: u64,
    /// Failed requests by what their clients saw.
    pub failed_by: BTreeMap<String, u64>,
    /// Requests that another endpoint answered well.
    pub rescued: u64,
    /// Rescued requests that were answered late.
    pub late: u64,
    /// Prediction for a failure of the endpoint alone.
    pub predicted: Option<PredictedDetection>,
    /// Prediction for a failure of the zone, if other endpoints of the zone failed too.
    pub predicted_zone: Option<PredictedDetection>,
}

impl IncidentRecord {
    /// The record of `incident` as of `now_us`, without a number and predictions.
    pub fn new(incident: &Incident, clock: &WallClock, now_us: u64) -> Self {
        let mut record = Self {
            pool: incident.subject.pool.to_string(),
            place: incident.subject.locality.to_string(),
            endpoint: Some(incident.subject.address.to_string()),
            class: incident.failure.class().as_str().to_owned(),
            reason: incident.failure.to_string(),
            by_traffic: incident.is_by_traffic,
            ..Self::default()
        };
        record.update(incident, clock, now_us);
        record
    }

    /// Copies all fields that change while the incident is open.
    pub fn update(&mut self, incident: &Incident, clock: &WallClock, now_us: u64) {
        let timeline = &incident.timeline;
        let us = |at| clock.unix_micros(at);
        self.last_good_us = us(timeline.last_good);
        self.first_bad_us = us(timeline.first_bad);
        self.suspect_us = us(timeline.suspect);
        self.verdict_us = us(timeline.verdict.unwrap_or(timeline.suspect));
        self.zone_verdict_us = timeline.zone_verdict.map(us);
        self.shift_us = timeline.shift.map(us);
        self.last_failure_us = timeline.last_failure.map(us);
        self.ended = incident.end.map(|ended| match ended {
            IncidentEnd::Restored => IncidentResolution::Restored,
            IncidentEnd::Removed => IncidentResolution::Removed,
        });
        self.ended_us = timeline.restored.map(us);
        self.restored_us =
            self.ended_us.filter(|_| self.ended == Some(IncidentResolution::Restored));
        self.seen_us = self.ended_us.unwrap_or(now_us);
        self.failed = incident.counts.failed;
        self.rescued = incident.counts.rescued;
        self.late = incident.counts.late;
        self.failed_repeatable = incident.client_failures.repeatable_count();
        let by = |failure_kind: ClientFailureKind| {
            (failure_kind.as_str().to_owned(), incident.client_failures.count_of(failure_kind))
        };
        self.failed_by =
            ClientFailureKind::ALL.map(by).into_iter().filter(|(_, count)| *count > 0).collect();
    }

    /// The estimated onset: midway between the last good and the first bad evidence.
    pub fn onset_us(&self) -> u64 {
        self.last_good_us + self.first_bad_us.saturating_sub(self.last_good_us) / 2
    }

    /// The time from which the endpoint was out of service: the first of the verdicts on it and on
    /// its zone.
    pub fn out_of_service_us(&self) -> u64 {
        self.zone_verdict_us.map_or(self.verdict_us, |zone| zone.min(self.verdict_us))
    }

    /// Whether its zone went down before it.
    pub fn fell_after_zone(&self) -> bool {
        self.out_of_service_us() < self.verdict_us
    }

    /// Time from onset to verdict.
    pub fn detection_us(&self) -> u64 {
        self.verdict_us.saturating_sub(self.onset_us())
    }

    /// Lower bound of the detection window: from the first bad evidence to the verdict.
    pub fn min_detection_us(&self) -> u64 {
        self.verdict_us.saturating_sub(self.first_bad_us)
    }

    /// Upper bound of the detection window: from the last good evidence to the verdict.
    pub fn max_detection_us(&self) -> u64 {
        self.verdict_us.saturating_sub(self.last_good_us)
    }

    /// From onset to the last failure that a client saw; zero without one.
    pub fn gap_us(&self) -> u64 {
        self.last_failure_us.map_or(0, |last| last.saturating_sub(self.onset_us()))
    }

    /// Time from onset to restoration.
    pub fn restoration_us(&self) -> Option<u64> {
        Some(self.restored_us?.saturating_sub(self.onset_us()))
    }

    /// Whether its end has not been recorded.
    pub fn is_open(&self) -> bool {
        self.ended.is_none()
    }

    /// Ends the incident at `at_us`, or at the time of its last observation.
    pub fn close(&mut self, resolution: IncidentResolution, at_us: Option<u64>) {
        let at_us = at_us.unwrap_or(self.seen_us);
        self.ended = Some(resolution);
        self.ended_us = Some(at_us);
        self.restored_us = (resolution == IncidentResolution::Restored).then_some(at_us);
        self.seen_us = at_us;
    }

    pub fn region(&self) -> &str {
        self.place.split('/').next().unwrap_or_default()
    }
}
