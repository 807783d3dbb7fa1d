//! What is handed over, as JSON: a later version may leave out or add what an earlier one has not
//! heard of. Times are sent by how long ago they were, since nobody else has this process's clock.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::successor::HandoverState;
use crate::app::control::discovery::name_cache::StoredAnswer;
use crate::app::control::orders::order_store::StoredOrder;
use crate::logic::director::{
    EndpointHealthExport, EvidenceRecord, EvidenceSource, HealthExport, OutlierExport,
    PoolHealthExport, WithheldReason, ZoneHealthExport, ZoneVerdict,
};
use crate::logic::health::endpoint_health::Health;
use crate::logic::health::recovery::{FlapHistory, Ramp};
use crate::logic::model::id::Locality;
use crate::logic::model::outcome::Failure;
use crate::logic::steering::affinity::CookieSecrets;
use crate::net::listener::{InheritedListener, ListenerRole};

/// All of it; the sockets themselves follow in their order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct HandoverMessage {
    pub(super) sockets: Vec<SocketHandover>,
    pub(super) pools: Vec<PoolHandover>,
    /// What names lead to.
    #[serde(default)]
    pub(super) names: Vec<StoredAnswer>,
    /// Upgrades before this one.
    #[serde(default)]
    pub(super) upgrades: u64,
    /// What operators have ordered; a version that knows of no orders has none.
    #[serde(default)]
    pub(super) orders: Vec<StoredOrder>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<CookieSecretHandover>,
}

/// Secrets as their file has them; shown to nobody.
#[derive(Serialize, Deserialize)]
struct CookieSecretHandover(String);

impl fmt::Debug for CookieSecretHandover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret")
    }
}

/// What is not seen of a socket itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SocketHandover {
    pub(super) name: SocketAddr,
    pub(super) is_admin: Option<bool>,
    #[serde(default)]
    pub(super) label: Option<String>,
}

/// A time, in microseconds before now; after now if negative.
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
    /// Strikes of a suspect, passes of one that returns.
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

fn is_false(is: &bool) -> bool {
    !is
}

impl HandoverMessage {
    pub(super) fn new(handover_state: &HandoverState, now: Instant) -> Self {
        let HandoverState { sockets, health_export: legacy, names, upgrades, orders, .. } =
            handover_state;
        let socket = |given: &InheritedListener| SocketHandover {
            name: given.configured_address,
            is_admin: given.role.map(|side| side == ListenerRole::Operator),
            label: given.label.clone(),
        };
        Self {
            sockets: sockets.iter().map(socket).collect(),
            pools: legacy.pools.iter().map(|pool| PoolHandover::new(pool, now)).collect(),
            names: names.clone(),
            upgrades: *upgrades,
            orders: orders.clone(),
            secret: None,
        }
    }

    /// The same, with what seals cookies.
    pub(super) fn with_cookie_secret(self, secret: Option<&CookieSecrets>) -> Self {
        Self { secret: secret.map(|secret| CookieSecretHandover(secret.to_text())), ..self }
    }

    pub(super) fn cookie_secret(&self) -> Option<CookieSecrets> {
        CookieSecrets::parse(&self.secret.as_ref()?.0).ok()
    }

    /// What can be understood of it: of the rest nothing is known, and it is probed.
    pub(super) fn health_export(&self, now: Instant) -> HealthExport {
        HealthExport { pools: self.pools.iter().map(|pool| pool.to_pool_export(now)).collect() }
    }
}

impl SocketHandover {
    pub(super) fn side(&self) -> Option<ListenerRole> {
        self.is_admin.map(|is| if is { ListenerRole::Operator } else { ListenerRole::Clients })
    }
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
    fn new(pool: &PoolHealthExport, now: Instant) -> Self {
        Self {
            name: pool.name.to_string(),
            diverges: pool.is_diverging,
            zones: pool.zones.iter().map(|zone| ZoneHandover::new(zone, now)).collect(),
        }
    }

    fn to_pool_export(&self, now: Instant) -> PoolHealthExport {
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
            endpoints: self
                .endpoints
                .iter()
                .filter_map(|one| one.to_endpoint_export(now))
                .collect(),
        })
    }
}

impl EndpointHandover {
    fn new(one: &EndpointHealthExport, now: Instant) -> Self {
        let ago = |at: Option<Instant>| at.map(|at| RelativeTime::new(at, now));
        let (in_a_row, failure) = match one.health {
            Health::Up => (None, None),
            Health::Unknown { strikes } => (Some(strikes), None),
            Health::Suspect { strikes, failure } => (Some(strikes), Some(failure)),
            Health::Down { failure } => (None, Some(failure)),
            Health::Returning { passes, failure } => (Some(passes), Some(failure)),
        };
        let (doubted, condemned) = match one.outlier {
            OutlierExport::Normal => (None, None),
            OutlierExport::Doubted { failure } => (Some(failure.to_string()), None),
            OutlierExport::Ejected { failure, until } => {
                (None, Some((failure.to_string(), RelativeTime::new(until, now))))
            }
        };
        Self {
            address: one.address,
            state: one.health.as_str().to_owned(),
            in_a_row,
            failure: failure.map(|failure| failure.to_string()),
            doubted,
            condemned,
            since: RelativeTime::new(one.since, now),
            proof: ago(one.last_success),
            held_until: ago(one.held_until),
            flaps: flaps_to_relative(one.flaps, now),
            ramp_since: ramp_to_relative(one.ramp, now),
            unproven_since: ago(one.unproven_since),
            degraded: one.is_degraded,
            contradicted: one.is_contradicted,
            withheld: one.withheld.map(|why| why.as_str().to_owned()),
            cause: one.cause.map(|evidence| EvidenceHandover::new(evidence, now)),
            evidence: one
                .evidence
                .iter()
                .map(|&evidence| EvidenceHandover::new(evidence, now))
                .collect(),
        }
    }

    /// All of it or nothing: half a verdict is none.
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
        let sentence = match (&self.doubted, &self.condemned) {
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
            outlier: sentence,
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

#[cfg(test)]
mod tests {
    use super::*;

    use crate::logic::model::outcome::FailureReason;

    const REFUSED: Failure = Failure::connect(FailureReason::Refused);

    fn endpoint(port: u16, health: Health, now: Instant) -> EndpointHealthExport {
        let ago = |seconds| now - Duration::from_secs(seconds);
        let evidence =
            EvidenceRecord { at: ago(3), source: EvidenceSource::Traffic, failure: REFUSED };
        EndpointHealthExport {
            address: ([127, 0, 0, 1], port).into(),
            health,
            outlier: OutlierExport::Normal,
            since: ago(3),
            last_success: Some(ago(4)),
            held_until: Some(now + Duration::from_secs(5)),
            flaps: FlapHistory { count: 1.5, last_down: Some(ago(3)) },
            ramp: Ramp::Since(ago(2)),
            unproven_since: Some(ago(1)),
            is_degraded: true,
            is_contradicted: true,
            withheld: Some(WithheldReason::Budget),
            cause: Some(evidence),
            evidence: vec![evidence, evidence],
        }
    }

    fn health_export(now: Instant) -> HealthExport {
        let status = Failure::http(FailureReason::Status(502));
        let mut endpoints = vec![
            endpoint(1, Health::Up, now),
            endpoint(2, Health::Suspect { strikes: 2, failure: status }, now),
            endpoint(3, Health::Down { failure: REFUSED }, now),
            endpoint(4, Health::Returning { passes: 1, failure: REFUSED }, now),
        ];
        endpoints[0].outlier = OutlierExport::Doubted { failure: status };
        endpoints[1].outlier = OutlierExport::Ejected { failure: status, until: now };
        let zone = ZoneHealthExport {
            place: Locality::parse("r/a").expect("a place"),
            verdict: ZoneVerdict::Down {
                failure: REFUSED,
                source: EvidenceSource::Correlation,
                since: now - Duration::from_secs(9),
                held_until: now + Duration::from_secs(1),
            },
            flaps: FlapHistory::default(),
            ramp: Ramp::Full,
            endpoints,
        };
        let pool = PoolHealthExport { name: "web".into(), is_diverging: true, zones: vec![zone] };
        HealthExport { pools: vec![pool] }
    }

    fn json_round_trip(message: &HandoverMessage) -> serde_json::Value {
        serde_json::to_value(message).expect("JSON")
    }

    #[test]
    fn handover_message_is_read_back_equal() {
        let now = Instant::now() + Duration::from_secs(3_600);
        let handover_state = HandoverState {
            sockets: Vec::new(),
            health_export: health_export(now),
            upgrades: 3,
            names: Vec::new(),
            orders: Vec::new(),
            cookie_secret: None,
        };
        let message = json_round_trip(&HandoverMessage::new(&handover_state, now));
        let message: HandoverMessage = serde_json::from_value(message).expect("a letter");
        assert_eq!(message.upgrades, 3);
        let later = now + Duration::from_secs(7);
        assert_eq!(message.health_export(later), health_export(later), "times keep their age");
    }

    #[test]
    fn unknown_state_in_handover_is_ignored() {
        let now = Instant::now() + Duration::from_secs(3_600);
        let handover_state = HandoverState {
            sockets: Vec::new(),
            health_export: health_export(now),
            upgrades: 0,
            names: Vec::new(),
            orders: Vec::new(),
            cookie_secret: None,
        };
        let mut message = json_round_trip(&HandoverMessage::new(&handover_state, now));
        message["new"] = 1.into();
        let endpoints = &mut message["pools"][0]["zones"][0]["endpoints"];
        endpoints[0]["state"] = "radiant".into();
        endpoints[2]["failure"] = "quantum decay".into();
        endpoints[3]["mood"] = "good".into();
        let message: HandoverMessage = serde_json::from_value(message).expect("a letter");
        let known = &message.health_export(now).pools[0].zones[0].endpoints;
        let ports: Vec<u16> = known.iter().map(|one| one.address.port()).collect();
        assert_eq!(ports, [2, 4]);
    }
}
