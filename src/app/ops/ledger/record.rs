//! One incident as it is kept: in times of day, so that it means something to another process.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::app::ops::api::WallClock;
use crate::logic::incident::client_failure::ClientFailureKind;
use crate::logic::incident::{Incident, IncidentEnd};

/// How an incident ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentResolution {
    /// The endpoint was put up again.
    Restored,
    /// The endpoint has gone from the configuration.
    Removed,
    /// The process that watched it has ended: nobody knows.
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

/// What the configuration of that time let expect of the detection, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PredictedDetection {
    /// The failure that was simulated.
    pub fault: String,
    /// Requests a second over the pool, as simulated; about what there were.
    pub rate_rps: Option<u32>,
    /// The least and the most by probes alone, in closed form; absent where probes see nothing.
    pub closed_form_us: Option<(u64, u64)>,
    /// From simulation; absent while that is under way, and where nothing would have been noticed.
    pub simulated: Option<DetectionQuantiles>,
}

/// A simulated detection window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectionQuantiles {
    /// Half of the trials took at most this long.
    pub median_us: u64,
    /// All but a hundredth.
    pub p99_us: u64,
    pub worst_us: u64,
}

impl PredictedDetection {
    /// The longest that was expected.
    pub fn worst_us(&self) -> Option<u64> {
        let closed = self.closed_form_us.map(|(_, worst)| worst);
        self.simulated.map(|simulated| simulated.worst_us).max(closed)
    }
}

/// Times in microseconds since 1970. What a later version adds has a default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IncidentRecord {
    /// Counts up over all processes that had the same state directory.
    pub id: u64,
    pub pool: String,
    /// `region/zone`, or a region where several of its zones are joined.
    pub place: String,
    /// `address:port`; absent where several are joined.
    pub endpoint: Option<String>,
    /// The kind of failure.
    pub class: String,
    /// What the verdict was made for.
    pub reason: String,
    /// Whether traffic made the verdict, and not probes.
    pub by_traffic: bool,
    /// The last proof of life.
    pub last_good_us: u64,
    /// When the exchange that became the first evidence began.
    pub first_bad_us: u64,
    /// When the first evidence was in.
    pub suspect_us: u64,
    /// When the verdict was made.
    pub verdict_us: u64,
    /// When the snapshot that moves the traffic was published.
    pub shift_us: Option<u64>,
    /// The last failure that a client saw.
    pub last_failure_us: Option<u64>,
    /// When it was put up again.
    pub restored_us: Option<u64>,
    /// When it had its whole share again.
    pub ramp_full_us: Option<u64>,
    pub ended: Option<IncidentResolution>,
    /// When it ended, whichever way.
    pub ended_us: Option<u64>,
    /// When something was last known of it.
    pub seen_us: u64,
    /// Requests whose clients saw the failure.
    pub failed: u64,
    /// Of those, how many could still have been sent again.
    pub failed_repeatable: u64,
    /// Those that failed, by what their clients saw.
    pub failed_by: BTreeMap<String, u64>,
    /// Requests that were answered well by another endpoint.
    pub rescued: u64,
    /// Of those, how many came late.
    pub late: u64,
    /// What was to be expected of an endpoint that fails so.
    pub predicted: Option<PredictedDetection>,
    /// What was to be expected of a zone that fails so, where others of its zone failed too.
    pub predicted_zone: Option<PredictedDetection>,
}

impl IncidentRecord {
    /// What is known of `incident` as of `now_us`; it has no number yet, and no prediction.
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

    /// Takes over what has changed since.
    pub fn update(&mut self, incident: &Incident, clock: &WallClock, now_us: u64) {
        let timeline = &incident.timeline;
        let us = |at| clock.unix_micros(at);
        self.last_good_us = us(timeline.last_good);
        self.first_bad_us = us(timeline.first_bad);
        self.suspect_us = us(timeline.suspect);
        self.verdict_us = us(timeline.verdict.unwrap_or(timeline.suspect));
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

    /// The estimated onset: the middle between the last good evidence and the first bad.
    pub fn onset_us(&self) -> u64 {
        self.last_good_us + self.first_bad_us.saturating_sub(self.last_good_us) / 2
    }

    /// From onset to verdict.
    pub fn detection_us(&self) -> u64 {
        self.verdict_us.saturating_sub(self.onset_us())
    }

    /// The most that it can have taken: from the last proof of life.
    pub fn max_detection_us(&self) -> u64 {
        self.verdict_us.saturating_sub(self.last_good_us)
    }

    /// From onset to the last failure that a client saw; zero if none did.
    pub fn gap_us(&self) -> u64 {
        self.last_failure_us.map_or(0, |last| last.saturating_sub(self.onset_us()))
    }

    /// From onset to restoration.
    pub fn restoration_us(&self) -> Option<u64> {
        Some(self.restored_us?.saturating_sub(self.onset_us()))
    }

    /// Whether nobody has said that it is over.
    pub fn is_open(&self) -> bool {
        self.ended.is_none()
    }

    /// Ends it, at the time at which something was last known of it, or this one.
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
