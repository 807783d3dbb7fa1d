//! What is handed over, as JSON: a later version may leave out or add what an earlier one has not
//! heard of. Times are sent by how long ago they were, since nobody else has this process's clock.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::successor::Estate;
use crate::app::discovery::memory::AnswerNote;
use crate::app::orders::keeper::Kept;
use crate::logic::affinity::Secrets;
use crate::logic::director::{
    EndpointLegacy, Legacy, Piece, PoolLegacy, Sentence, Source, Withheld, ZoneLegacy, ZoneVerdict,
};
use crate::logic::health::Health;
use crate::logic::id::Place;
use crate::logic::outcome::Failure;
use crate::logic::recovery::{Flaps, Ramp};
use crate::net::listener::{Given, Side};

/// All of it; the sockets themselves follow in their order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Letter {
    pub(super) sockets: Vec<SocketNote>,
    pub(super) pools: Vec<PoolNote>,
    /// What names lead to.
    #[serde(default)]
    pub(super) names: Vec<AnswerNote>,
    /// Upgrades before this one.
    #[serde(default)]
    pub(super) upgrades: u64,
    /// What operators have ordered; a version that knows of no orders has none.
    #[serde(default)]
    pub(super) orders: Vec<Kept>,
    /// What seals cookies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<SecretNote>,
}

/// Secrets as their file has them; shown to nobody.
#[derive(Serialize, Deserialize)]
struct SecretNote(String);

impl fmt::Debug for SecretNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret")
    }
}

/// What is not seen of a socket itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SocketNote {
    pub(super) name: SocketAddr,
    pub(super) is_admin: Option<bool>,
    #[serde(default)]
    pub(super) label: Option<String>,
}

/// A time, in microseconds before now; after now if negative.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Ago(i64);

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PoolNote {
    name: String,
    #[serde(default)]
    diverges: bool,
    zones: Vec<ZoneNote>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ZoneNote {
    place: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    down: Option<ZoneDown>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flaps: Option<(f32, Ago)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ramp_since: Option<Ago>,
    endpoints: Vec<EndpointNote>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ZoneDown {
    failure: String,
    source: String,
    since: Ago,
    held_until: Ago,
}

#[derive(Debug, Serialize, Deserialize)]
struct EndpointNote {
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
    condemned: Option<(String, Ago)>,
    since: Ago,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proof: Option<Ago>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held_until: Option<Ago>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flaps: Option<(f32, Ago)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ramp_since: Option<Ago>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unproven_since: Option<Ago>,
    #[serde(default, skip_serializing_if = "is_no")]
    degraded: bool,
    #[serde(default, skip_serializing_if = "is_no")]
    contradicted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    withheld: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<PieceNote>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    evidence: Vec<PieceNote>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PieceNote {
    at: Ago,
    source: String,
    failure: String,
}

fn is_no(is: &bool) -> bool {
    !is
}

impl Letter {
    pub(super) fn new(estate: &Estate, now: Instant) -> Self {
        let Estate { sockets, legacy, names, upgrades, orders, .. } = estate;
        let socket = |given: &Given| SocketNote {
            name: given.name,
            is_admin: given.side.map(|side| side == Side::Operator),
            label: given.label.clone(),
        };
        Self {
            sockets: sockets.iter().map(socket).collect(),
            pools: legacy.pools.iter().map(|pool| PoolNote::new(pool, now)).collect(),
            names: names.clone(),
            upgrades: *upgrades,
            orders: orders.clone(),
            secret: None,
        }
    }

    /// The same, with what seals cookies.
    pub(super) fn with_secret(self, secret: Option<&Secrets>) -> Self {
        Self { secret: secret.map(|secret| SecretNote(secret.text())), ..self }
    }

    /// What seals cookies.
    pub(super) fn secret(&self) -> Option<Secrets> {
        Secrets::read(&self.secret.as_ref()?.0).ok()
    }

    /// What can be understood of it: of the rest nothing is known, and it is probed.
    pub(super) fn legacy(&self, now: Instant) -> Legacy {
        Legacy { pools: self.pools.iter().map(|pool| pool.read(now)).collect() }
    }
}

impl SocketNote {
    pub(super) fn side(&self) -> Option<Side> {
        self.is_admin.map(|is| if is { Side::Operator } else { Side::Clients })
    }
}

impl Ago {
    fn new(at: Instant, now: Instant) -> Self {
        let us = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        match now.checked_duration_since(at) {
            Some(ago) => Self(us(ago)),
            None => Self(-us(at.saturating_duration_since(now))),
        }
    }

    fn read(self, now: Instant) -> Instant {
        let time = Duration::from_micros(self.0.unsigned_abs());
        let at = if self.0 < 0 { now.checked_add(time) } else { now.checked_sub(time) };
        at.unwrap_or(now)
    }
}

fn flaps_note(flaps: Flaps, now: Instant) -> Option<(f32, Ago)> {
    flaps.at.map(|at| (flaps.count, Ago::new(at, now)))
}

fn read_flaps(note: Option<(f32, Ago)>, now: Instant) -> Flaps {
    note.filter(|(count, _)| count.is_finite())
        .map_or_else(Flaps::default, |(count, at)| Flaps { count, at: Some(at.read(now)) })
}

fn ramp_note(ramp: Ramp, now: Instant) -> Option<Ago> {
    match ramp {
        Ramp::Full => None,
        Ramp::Since(since) => Some(Ago::new(since, now)),
    }
}

fn read_ramp(note: Option<Ago>, now: Instant) -> Ramp {
    note.map_or(Ramp::Full, |since| Ramp::Since(since.read(now)))
}

impl PoolNote {
    fn new(pool: &PoolLegacy, now: Instant) -> Self {
        Self {
            name: pool.name.to_string(),
            diverges: pool.diverges,
            zones: pool.zones.iter().map(|zone| ZoneNote::new(zone, now)).collect(),
        }
    }

    fn read(&self, now: Instant) -> PoolLegacy {
        PoolLegacy {
            name: self.name.as_str().into(),
            diverges: self.diverges,
            zones: self.zones.iter().filter_map(|zone| zone.read(now)).collect(),
        }
    }
}

impl ZoneNote {
    fn new(zone: &ZoneLegacy, now: Instant) -> Self {
        let down = match zone.verdict {
            ZoneVerdict::Up => None,
            ZoneVerdict::Down { failure, source, since, held_until } => Some(ZoneDown {
                failure: failure.to_string(),
                source: source.as_str().to_owned(),
                since: Ago::new(since, now),
                held_until: Ago::new(held_until, now),
            }),
        };
        Self {
            place: zone.place.to_string(),
            down,
            flaps: flaps_note(zone.flaps, now),
            ramp_since: ramp_note(zone.ramp, now),
            endpoints: zone.endpoints.iter().map(|one| EndpointNote::new(one, now)).collect(),
        }
    }

    fn read(&self, now: Instant) -> Option<ZoneLegacy> {
        let down = |down: &ZoneDown| {
            Some(ZoneVerdict::Down {
                failure: Failure::parse(&down.failure)?,
                source: Source::parse(&down.source)?,
                since: down.since.read(now),
                held_until: down.held_until.read(now),
            })
        };
        Some(ZoneLegacy {
            place: Place::parse(&self.place)?,
            verdict: self.down.as_ref().and_then(down).unwrap_or_default(),
            flaps: read_flaps(self.flaps, now),
            ramp: read_ramp(self.ramp_since, now),
            endpoints: self.endpoints.iter().filter_map(|one| one.read(now)).collect(),
        })
    }
}

impl EndpointNote {
    fn new(one: &EndpointLegacy, now: Instant) -> Self {
        let ago = |at: Option<Instant>| at.map(|at| Ago::new(at, now));
        let (in_a_row, failure) = match one.health {
            Health::Up => (None, None),
            Health::Unknown { strikes } => (Some(strikes), None),
            Health::Suspect { strikes, failure } => (Some(strikes), Some(failure)),
            Health::Down { failure } => (None, Some(failure)),
            Health::Returning { passes, failure } => (Some(passes), Some(failure)),
        };
        let (doubted, condemned) = match one.sentence {
            Sentence::Sound => (None, None),
            Sentence::Doubted { failure } => (Some(failure.to_string()), None),
            Sentence::Condemned { failure, until } => {
                (None, Some((failure.to_string(), Ago::new(until, now))))
            }
        };
        Self {
            address: one.address,
            state: one.health.as_str().to_owned(),
            in_a_row,
            failure: failure.map(|failure| failure.to_string()),
            doubted,
            condemned,
            since: Ago::new(one.since, now),
            proof: ago(one.last_proof),
            held_until: ago(one.held_until),
            flaps: flaps_note(one.flaps, now),
            ramp_since: ramp_note(one.ramp, now),
            unproven_since: ago(one.unproven_since),
            degraded: one.is_degraded,
            contradicted: one.is_contradicted,
            withheld: one.withheld.map(|why| why.as_str().to_owned()),
            cause: one.cause.map(|piece| PieceNote::new(piece, now)),
            evidence: one.evidence.iter().map(|&piece| PieceNote::new(piece, now)).collect(),
        }
    }

    /// All of it or nothing: half a verdict is none.
    fn read(&self, now: Instant) -> Option<EndpointLegacy> {
        let at = |ago: Option<Ago>| ago.map(|ago| ago.read(now));
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
            (None, None) => Sentence::Sound,
            (Some(failure), None) => Sentence::Doubted { failure: Failure::parse(failure)? },
            (_, Some((failure, until))) => {
                Sentence::Condemned { failure: Failure::parse(failure)?, until: until.read(now) }
            }
        };
        Some(EndpointLegacy {
            address: self.address,
            health,
            sentence,
            since: self.since.read(now),
            last_proof: at(self.proof),
            held_until: at(self.held_until),
            flaps: read_flaps(self.flaps, now),
            ramp: read_ramp(self.ramp_since, now),
            unproven_since: at(self.unproven_since),
            is_degraded: self.degraded,
            is_contradicted: self.contradicted,
            withheld: self.withheld.as_deref().and_then(Withheld::parse),
            cause: self.cause.as_ref().and_then(|piece| piece.read(now)),
            evidence: self.evidence.iter().filter_map(|piece| piece.read(now)).collect(),
        })
    }
}

impl PieceNote {
    fn new(piece: Piece, now: Instant) -> Self {
        Self {
            at: Ago::new(piece.at, now),
            source: piece.source.as_str().to_owned(),
            failure: piece.failure.to_string(),
        }
    }

    fn read(&self, now: Instant) -> Option<Piece> {
        Some(Piece {
            at: self.at.read(now),
            source: Source::parse(&self.source)?,
            failure: Failure::parse(&self.failure)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::logic::outcome::Reason;

    const REFUSED: Failure = Failure::connect(Reason::Refused);

    fn endpoint(port: u16, health: Health, now: Instant) -> EndpointLegacy {
        let ago = |seconds| now - Duration::from_secs(seconds);
        let piece = Piece { at: ago(3), source: Source::Traffic, failure: REFUSED };
        EndpointLegacy {
            address: ([127, 0, 0, 1], port).into(),
            health,
            sentence: Sentence::Sound,
            since: ago(3),
            last_proof: Some(ago(4)),
            held_until: Some(now + Duration::from_secs(5)),
            flaps: Flaps { count: 1.5, at: Some(ago(3)) },
            ramp: Ramp::Since(ago(2)),
            unproven_since: Some(ago(1)),
            is_degraded: true,
            is_contradicted: true,
            withheld: Some(Withheld::Budget),
            cause: Some(piece),
            evidence: vec![piece, piece],
        }
    }

    fn legacy(now: Instant) -> Legacy {
        let status = Failure::http(Reason::Status(502));
        let mut endpoints = vec![
            endpoint(1, Health::Up, now),
            endpoint(2, Health::Suspect { strikes: 2, failure: status }, now),
            endpoint(3, Health::Down { failure: REFUSED }, now),
            endpoint(4, Health::Returning { passes: 1, failure: REFUSED }, now),
        ];
        endpoints[0].sentence = Sentence::Doubted { failure: status };
        endpoints[1].sentence = Sentence::Condemned { failure: status, until: now };
        let zone = ZoneLegacy {
            place: Place::parse("r/a").expect("a place"),
            verdict: ZoneVerdict::Down {
                failure: REFUSED,
                source: Source::Correlation,
                since: now - Duration::from_secs(9),
                held_until: now + Duration::from_secs(1),
            },
            flaps: Flaps::default(),
            ramp: Ramp::Full,
            endpoints,
        };
        let pool = PoolLegacy { name: "web".into(), diverges: true, zones: vec![zone] };
        Legacy { pools: vec![pool] }
    }

    fn through_json(letter: &Letter) -> serde_json::Value {
        serde_json::to_value(letter).expect("JSON")
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let now = Instant::now() + Duration::from_secs(3_600);
        let estate = Estate {
            sockets: Vec::new(),
            legacy: legacy(now),
            upgrades: 3,
            names: Vec::new(),
            orders: Vec::new(),
            secret: None,
        };
        let letter = through_json(&Letter::new(&estate, now));
        let letter: Letter = serde_json::from_value(letter).expect("a letter");
        assert_eq!(letter.upgrades, 3);
        let later = now + Duration::from_secs(7);
        assert_eq!(letter.legacy(later), legacy(later), "times keep their age");
    }

    #[test]
    fn what_is_not_understood_is_not_known() {
        let now = Instant::now() + Duration::from_secs(3_600);
        let estate = Estate {
            sockets: Vec::new(),
            legacy: legacy(now),
            upgrades: 0,
            names: Vec::new(),
            orders: Vec::new(),
            secret: None,
        };
        let mut letter = through_json(&Letter::new(&estate, now));
        letter["new"] = 1.into();
        let endpoints = &mut letter["pools"][0]["zones"][0]["endpoints"];
        endpoints[0]["state"] = "radiant".into();
        endpoints[2]["failure"] = "quantum decay".into();
        endpoints[3]["mood"] = "good".into();
        let letter: Letter = serde_json::from_value(letter).expect("a letter");
        let known = &letter.legacy(now).pools[0].zones[0].endpoints;
        let ports: Vec<u16> = known.iter().map(|one| one.address.port()).collect();
        assert_eq!(ports, [2, 4]);
    }
}
