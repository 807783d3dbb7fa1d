//! Health state in the handover message, as JSON.
//!
//! Times are sent as their age, because two processes share no monotonic clock.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::logic::director::{
    EndpointHealthExport, EvidenceRecord, EvidenceSource, OutlierExport, PoolHealthExport,
    WithheldReason, ZoneHealthExport, ZoneVerdict,
};
use crate::logic::health::endpoint_health::Health;
use crate::logic::health::recovery::{FlapHistory, Ramp};
use crate::logic::model::id::Locality;
use crate::logic::model::outcome::Failure;

/// A time in microseconds before now; negative for a time after now.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct RelativeTime(i64);

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PoolHandover {
    name: String,
    #[serde(default)]
    diverges: bool,
    zones: Vec<ZoneHandover>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ZoneHandover {
    place: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    down: Option<ZoneDownHandover>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flaps: Option<(f32, RelativeTime)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ramp_since: Option<RelativeTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    latency_p999_us: Option<u64>,
    endpoints: Vec<EndpointHandover>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ZoneDownHandover {
    failure: String,
    source: String,
    since: RelativeTime,
    held_until: RelativeTime,
}

#[derive(Debug, Serialize, Deserialize)]
struct EndpointHandover {
    address: SocketAddr,
    state: String,
    /// Strikes of a suspect endpoint, passes of a returning one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    in_a_row: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    doubted: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    condemned: Option<(String, RelativeTime)>,
    since: RelativeTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proof: Option<RelativeTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held_until: Option<RelativeTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flaps: Option<(f32, RelativeTime)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ramp_since: Option<RelativeTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unproven_since: Option<RelativeTime>,
    #[serde(default, skip_serializing_if = "is_false")]
    degraded: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    contradicted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    withheld: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<EvidenceHandover>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    evidence: Vec<EvidenceHandover>,
}

#[derive(Debug, Serialize, Deserialize)]
struct EvidenceHandover {
    at: RelativeTime,
    source: String,
    failure: String,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl RelativeTime {
    fn new(at: Instant, now: Instant) -> Self {
        let us = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        match now.checked_duration_since(at) {
            Some(ago) => Self(us(ago)),
            None => Self(-us(at.saturating_duration_since(now))),
        }
    }

    fn to_instant(self, now: Instant) -> Instant {
        let time = Duration::from_micros(self.0.unsigned_abs());
        let at = if self.0 < 0 { now.checked_add(time) } else { now.checked_sub(time) };
        at.unwrap_or(now)
    }
}

fn flaps_to_relative(flaps: FlapHistory, now: Instant) -> Option<(f32, RelativeTime)> {
    flaps.last_down.map(|at| (flaps.count, RelativeTime::new(at, now)))
}

fn flaps_from_relative(relative: Option<(f32, RelativeTime)>, now: Instant) -> FlapHistory {
    relative.filter(|(count, _)| count.is_finite()).map_or_else(
        FlapHistory::default,
        |(count, at)| FlapHistory { count, last_down: Some(at.to_instant(now)) },
    )
}

fn ramp_to_relative(ramp: Ramp, now: Instant) -> Option<RelativeTime> {
    match ramp {
        Ramp::Full => None,
        Ramp::Since(since) => Some(RelativeTime::new(since, now)),
    }
}

fn ramp_from_relative(relative: Option<RelativeTime>, now: Instant) -> Ramp {
    relative.map_or(Ramp::Full, |since| Ramp::Since(since.to_instant(now)))
}

impl PoolHandover {
    pub(super) fn new(pool: &PoolHealthExport, now: Instant) -> Self {
        Self {
            name: pool.name.to_string(),
            diverges: pool.is_diverging,
            zones: pool.zones.iter().map(|zone| ZoneHandover::new(zone, now)).collect(),
        }
    }

    pub(super) fn to_pool_export(&self, now: Instant) -> PoolHealthExport {
        PoolHealthExport {
            name: self.name.as_str().into(),
            is_diverging: self.diverges,
            zones: self.zones.iter().filter_map(|zone| zone.to_zone_export(now)).collect(),
        }
    }
}

impl ZoneHandover {
    fn new(zone: &ZoneHealthExport, now: Instant) -> Self {
        let down = match zone.verdict {
            ZoneVerdict::Up => None,
            ZoneVerdict::Down { failure, source, since, held_until } => Some(ZoneDownHandover {
                failure: failure.to_string(),
                source: source.as_str().to_owned(),
                since: RelativeTime::new(since, now),
                held_until: RelativeTime::new(held_until, now),
            }),
        };
        Self {
            place: zone.place.to_string(),
            down,
            flaps: flaps_to_relative(zone.flaps, now),
            ramp_since: ramp_to_relative(zone.ramp, now),
            latency_p999_us: zone.latency_p999.map(|p999| p999.as_micros() as u64),
            endpoints: zone.endpoints.iter().map(|one| EndpointHandover::new(one, now)).collect(),
        }
    }

    fn to_zone_export(&self, now: Instant) -> Option<ZoneHealthExport> {
        let down = |down: &ZoneDownHandover| {
            Some(ZoneVerdict::Down {
                failure: Failure::parse(&down.failure)?,
                source: EvidenceSource::parse(&down.source)?,
                since: down.since.to_instant(now),
                held_until: down.held_until.to_instant(now),
            })
        };
        Some(ZoneHealthExport {
            place: Locality::parse(&self.place)?,
            verdict: self.down.as_ref().and_then(down).unwrap_or_default(),
            flaps: flaps_from_relative(self.flaps, now),
            ramp: ramp_from_relative(self.ramp_since, now),
            latency_p999: self.latency_p999_us.map(Duration::from_micros),
            endpoints: self
                .endpoints
                .iter()
                .filter_map(|one| one.to_endpoint_export(now))
                .collect(),
        })
    }
}

impl EndpointHandover {
    fn new(endpoint: &EndpointHealthExport, now: Instant) -> Self {
        let ago = |at: Option<Instant>| at.map(|at| RelativeTime::new(at, now));
        let (in_a_row, failure) = match endpoint.health {
            Health::Up => (None, None),
            Health::Unknown { strikes } => (Some(strikes), None),
            Health::Suspect { strikes, failure } => (Some(strikes), Some(failure)),
            Health::Down { failure } => (None, Some(failure)),
            Health::Returning { passes, failure } => (Some(passes), Some(failure)),
        };
        let (doubted, condemned) = match endpoint.outlier {
            OutlierExport::Normal => (None, None),
            OutlierExport::Doubted { failure } => (Some(failure.to_string()), None),
            OutlierExport::Ejected { failure, until } => {
                (None, Some((failure.to_string(), RelativeTime::new(until, now))))
            }
        };
        Self {
            address: endpoint.address,
            state: endpoint.health.as_str().to_owned(),
            in_a_row,
            failure: failure.map(|failure| failure.to_string()),
            doubted,
            condemned,
            since: RelativeTime::new(endpoint.since, now),
            proof: ago(endpoint.last_success),
            held_until: ago(endpoint.held_until),
            flaps: flaps_to_relative(endpoint.flaps, now),
            ramp_since: ramp_to_relative(endpoint.ramp, now),
            unproven_since: ago(endpoint.unproven_since),
            degraded: endpoint.is_degraded,
            contradicted: endpoint.is_contradicted,
            withheld: endpoint.withheld.map(|why| why.as_str().to_owned()),
            cause: endpoint.cause.map(|evidence| EvidenceHandover::new(evidence, now)),
            evidence: endpoint
                .evidence
                .iter()
                .map(|&evidence| EvidenceHandover::new(evidence, now))
                .collect(),
        }
    }

    /// `None` if any field of the verdict is invalid: the endpoint then starts without history.
    fn to_endpoint_export(&self, now: Instant) -> Option<EndpointHealthExport> {
        let at = |ago: Option<RelativeTime>| ago.map(|ago| ago.to_instant(now));
        let failure = self.failure.as_deref().map(Failure::parse);
        let in_a_row = self.in_a_row;
        let health = match self.state.as_str() {
            "up" => Health::Up,
            "suspect" => Health::Suspect { strikes: in_a_row?, failure: failure?? },
            "down" => Health::Down { failure: failure?? },
            "returning" => Health::Returning { passes: in_a_row?, failure: failure?? },
            _ => return None,
        };
        let outlier = match (&self.doubted, &self.condemned) {
            (None, None) => OutlierExport::Normal,
            (Some(failure), None) => OutlierExport::Doubted { failure: Failure::parse(failure)? },
            (_, Some((failure, until))) => OutlierExport::Ejected {
                failure: Failure::parse(failure)?,
                until: until.to_instant(now),
            },
        };
        Some(EndpointHealthExport {
            address: self.address,
            health,
            outlier,
            since: self.since.to_instant(now),
            last_success: at(self.proof),
            held_until: at(self.held_until),
            flaps: flaps_from_relative(self.flaps, now),
            ramp: ramp_from_relative(self.ramp_since, now),
            unproven_since: at(self.unproven_since),
            is_degraded: self.degraded,
            is_contradicted: self.contradicted,
            withheld: self.withheld.as_deref().and_then(WithheldReason::parse),
            cause: self.cause.as_ref().and_then(|evidence| evidence.to_evidence(now)),
            evidence: self
                .evidence
                .iter()
                .filter_map(|evidence| evidence.to_evidence(now))
                .collect(),
        })
    }
}

impl EvidenceHandover {
    fn new(evidence: EvidenceRecord, now: Instant) -> Self {
        Self {
            at: RelativeTime::new(evidence.at, now),
            source: evidence.source.as_str().to_owned(),
            failure: evidence.failure.to_string(),
        }
    }

    fn to_evidence(&self, now: Instant) -> Option<EvidenceRecord> {
        Some(EvidenceRecord {
            at: self.at.to_instant(now),
            source: EvidenceSource::parse(&self.source)?,
            failure: Failure::parse(&self.failure)?,
        })
    }
}
