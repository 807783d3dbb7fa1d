//! Requests of one client that stay with one endpoint.
//!
//! By a header or the client's address they do so as by any key ([`super::balance::consistent_hash`]), without
//! anything being kept. By a cookie they carry a [`Pin`], which decides inside the outcome of steering:
//! an endpoint that takes traffic gets the requests that are pinned to it, in whatever tier it is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::balance::{HashKeySource, hash};
use super::target::Target;
use super::zone_targets::ZoneTargets;
use crate::logic::model::pick_request::RetrySafety;

/// By what requests stay with an endpoint (`affinity` in the file).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionAffinity {
    /// By a key of theirs.
    Key(HashKeySource),
    /// By a cookie of ours.
    Cookie(AffinityCookie),
}

/// A cookie that names an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AffinityCookie {
    /// What it is called.
    pub name: Arc<str>,
    /// How long it lasts after it was last written; absent, for as long as the client keeps it.
    pub ttl: Option<Duration>,
    /// What becomes of a client whose endpoint is back.
    pub failback: FailbackPolicy,
    /// How long an endpoint that is drained still gets the requests that are pinned to it.
    pub drain_timeout: Duration,
    /// What seals it; absent, what the instance has.
    pub secrets: Option<CookieSecrets>,
}

/// [`Cookie::drain`], unless said otherwise.
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_mins(10);

/// What becomes of a client whose endpoint failed and is back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailbackPolicy {
    #[default]
    ReturnToPreferred,
    /// It stays where it went.
    StayOnCurrent,
}

/// What seals cookies: the first one seals, and all of them open.
#[derive(Clone, PartialEq, Eq)]
pub struct CookieSecrets(pub Arc<[[u8; 32]]>);

/// Secrets that a file may hold, at most.
const MAX_SECRETS: usize = 16;

impl CookieSecrets {
    /// Reads one secret a line, of 64 hexadecimal digits each; lines that are empty or begin with `#`
    /// are passed over.
    ///
    /// # Errors
    /// What is wrong, without showing any of it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut secrets = Vec::new();
        for (line, number) in text.lines().map(str::trim).zip(1..) {
            if !line.is_empty() && !line.starts_with('#') {
                let secret = parse_secret(line);
                secrets.push(secret.ok_or_else(|| format!("has no secret in line {number}"))?);
            }
        }
        match secrets.len() {
            0 => Err("holds no secret".to_owned()),
            1..=MAX_SECRETS => Ok(Self(secrets.into())),
            _ => Err(format!("holds more than {MAX_SECRETS} secrets")),
        }
    }

    /// What is read so.
    pub fn to_text(&self) -> String {
        let line = |secret: &[u8; 32]| {
            let digits = secret.iter().map(|byte| format!("{byte:02x}"));
            digits.chain(["\n".to_owned()]).collect::<String>()
        };
        self.0.iter().map(line).collect()
    }
}

fn parse_secret(line: &str) -> Option<[u8; 32]> {
    let digits = line.as_bytes();
    let mut secret = [0; 32];
    if digits.len() != 2 * secret.len() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(secret)
}

impl fmt::Debug for CookieSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

/// What a client's cookie says. Endpoints are named by [`super::balance::hash::identity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffinityPin {
    /// Where the client was first.
    pub preferred: u64,
    /// Where it is, while that one does not serve.
    pub current: u64,
    /// When this was written, in seconds since 1970.
    pub written_s: u32,
}

/// How the endpoint of a pin stands.
#[derive(Clone, Copy, Debug)]
pub enum PinnedEndpoint<'a> {
    /// It takes the request.
    Available(&'a Target),
    /// It will soon be known whether it does, or it takes others.
    TemporarilyUnavailable,
    Down,
    /// It is not declared any more.
    Unknown,
}

/// The endpoints of a pool as pins find them.
#[derive(Clone, Debug)]
pub struct AffinityIndex {
    /// Every endpoint's identity, zone and position in it; in order.
    positions: Arc<[(u64, u32, u32)]>,
    zones: Vec<AffinityZone>,
}

/// Those endpoints of a zone that take pinned requests.
#[derive(Clone, Debug, Default)]
pub struct AffinityZone {
    pub any_request: Option<ZoneTargets>,
    /// Those that may be sent again.
    pub repeatable_only: Option<ZoneTargets>,
    /// None, where there is anybody else.
    pub suspects: Option<ZoneTargets>,
    /// Those that get nothing else any more, and until when (in microseconds since the process's epoch):
    /// an operator drains them.
    pub draining: Vec<(Target, u64)>,
}

/// A request, as pins are asked for it.
#[derive(Clone, Copy, Debug)]
pub struct AffinityRequest {
    /// What may be done with it.
    pub retry_safety: RetrySafety,
    /// When, in microseconds since the process's epoch.
    pub now_us: u64,
}

impl AffinityIndex {
    /// The seats of a pool, which stay until it is configured anew, by their zones as they are now.
    pub fn new(positions: &Arc<[(u64, u32, u32)]>, zones: Vec<AffinityZone>) -> Self {
        Self { positions: Arc::clone(positions), zones }
    }

    /// How the endpoint stands towards a request.
    pub fn lookup(&self, identity: u64, request: AffinityRequest) -> PinnedEndpoint<'_> {
        let AffinityRequest { retry_safety: sending, now_us } = request;
        let first = self.positions.partition_point(|&(known, ..)| known < identity);
        let Some(&(_, zone, position)) =
            self.positions.get(first).filter(|seat| seat.0 == identity)
        else {
            return PinnedEndpoint::Unknown;
        };
        let Some(zone) = self.zones.get(zone as usize) else { return PinnedEndpoint::Down };
        let has_position = |cell: &'_ Option<ZoneTargets>| {
            cell.as_ref().is_some_and(|c| c.active_target(position).is_some())
        };
        let targets = match sending {
            RetrySafety::Repeatable => &zone.repeatable_only,
            RetrySafety::NotRepeatable { .. } => &zone.any_request,
        };
        let found = targets.as_ref().and_then(|cell| cell.active_target(position));
        match (found, sending) {
            (Some(target), RetrySafety::NotRepeatable { waiting_before_us: before_us })
                if target.stats.has_waited_since_before(before_us) =>
            {
                PinnedEndpoint::TemporarilyUnavailable
            }
            (Some(target), _) => PinnedEndpoint::Available(target),
            (None, _) if has_position(&zone.repeatable_only) => {
                PinnedEndpoint::TemporarilyUnavailable
            }
            (None, _) if has_position(&zone.suspects) => {
                self.lookup_suspect(&zone.suspects, position)
            }
            (None, _) => {
                let is_same_endpoint =
                    |one: &&(Target, u64)| hash::endpoint_hash(one.0.address) == identity;
                let drained = zone
                    .draining
                    .iter()
                    .find(is_same_endpoint)
                    .filter(|(_, until)| now_us < *until);
                drained
                    .map_or(PinnedEndpoint::Down, |(target, _)| PinnedEndpoint::Available(target))
            }
        }
    }

    /// A suspect serves where there is nobody else.
    fn lookup_suspect<'a>(
        &self,
        cell: &'a Option<ZoneTargets>,
        position: u32,
    ) -> PinnedEndpoint<'a> {
        let has_better = self.zones.iter().any(|zone| zone.repeatable_only.is_some());
        let found = cell.as_ref().and_then(|cell| cell.active_target(position));
        found
            .filter(|_| !has_better)
            .map_or(PinnedEndpoint::TemporarilyUnavailable, PinnedEndpoint::Available)
    }
}

impl AffinityPin {
    pub fn new(endpoint: u64, now_s: u32) -> Self {
        Self { preferred: endpoint, current: endpoint, written_s: now_s }
    }

    /// Whether it is too old to be believed.
    pub fn is_expired(&self, cookie: &AffinityCookie, now_s: u32) -> bool {
        cookie
            .ttl
            .is_some_and(|ttl| u64::from(now_s.saturating_sub(self.written_s)) >= ttl.as_secs())
    }

    /// Where its client is to go: to the first one if that serves, else to where it is.
    pub fn resolve<'a>(
        &self,
        pins: &'a AffinityIndex,
        request: AffinityRequest,
    ) -> PinnedEndpoint<'a> {
        let first = pins.lookup(self.preferred, request);
        if self.current == self.preferred || matches!(first, PinnedEndpoint::Available(_)) {
            return first;
        }
        pins.lookup(self.current, request)
    }

    /// What is to be written once `served` has answered; `None` if that is what the client has.
    ///
    /// A client that only went by its endpoint, because that one is suspect, slow or full, keeps its
    /// pin. `failed` says that it failed this request.
    pub fn updated_after(
        &self,
        served_by: u64,
        has_failed: bool,
        (pins, cookie): (&AffinityIndex, &AffinityCookie),
        (now_us, now_s): (u64, u32),
    ) -> Option<Self> {
        let request = AffinityRequest { retry_safety: RetrySafety::Repeatable, now_us };
        let written_s = now_s;
        if served_by == self.current {
            let age = u64::from(now_s.saturating_sub(self.written_s));
            let is_old = cookie.ttl.is_some_and(|ttl| age >= ttl.as_secs().div_ceil(2));
            return is_old.then_some(Self { written_s, ..*self });
        }
        let first = pins.lookup(self.preferred, request);
        if served_by == self.preferred {
            return Some(Self::new(served_by, now_s));
        }
        let now = pins.lookup(self.current, request);
        if !has_failed && !matches!(now, PinnedEndpoint::Down | PinnedEndpoint::Unknown) {
            return None;
        }
        Some(match (cookie.failback, first) {
            (FailbackPolicy::StayOnCurrent, _)
            | (FailbackPolicy::ReturnToPreferred, PinnedEndpoint::Unknown) => {
                Self::new(served_by, now_s)
            }
            (FailbackPolicy::ReturnToPreferred, _) => {
                Self { preferred: self.preferred, current: served_by, written_s }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::model::id::EndpointId;
    use crate::logic::steering::balance::hash::endpoint_hash;
    use std::net::SocketAddr;

    fn address(n: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 9_000 + n))
    }

    fn name(n: u16) -> u64 {
        endpoint_hash(address(n))
    }

    /// Four endpoints in one zone, of which these are open, and these suspects.
    fn pins(open: &[u32], suspects: &[u32]) -> AffinityIndex {
        let target = |n: u16| Target {
            id: EndpointId::new(u32::from(n), 0),
            address: address(n),
            zone: 0,
            weight: 1,
            stats: Arc::default(),
            zone_stats: Arc::default(),
        };
        let targets: Arc<[Target]> = (0..4).map(target).collect();
        let zone_targets = |positions: &[u32]| {
            let active: Vec<(u32, u32)> = positions.iter().map(|&one| (one, 1_000)).collect();
            ZoneTargets::new(&targets, &active)
        };
        let mut positions: Vec<_> = (0..4).map(|n| (name(n), 0, u32::from(n))).collect();
        positions.sort_unstable();
        let (clear, suspects) = (zone_targets(open), zone_targets(suspects));
        AffinityIndex::new(
            &positions.into(),
            vec![AffinityZone {
                repeatable_only: clear.clone(),
                any_request: clear,
                suspects,
                draining: Vec::new(),
            }],
        )
    }

    fn cookie(on_return: FailbackPolicy) -> AffinityCookie {
        let ttl = Some(Duration::from_secs(100));
        AffinityCookie {
            name: "pin".into(),
            ttl,
            failback: on_return,
            drain_timeout: DEFAULT_DRAIN_TIMEOUT,
            secrets: None,
        }
    }

    fn request_at(now_us: u64) -> AffinityRequest {
        AffinityRequest { retry_safety: RetrySafety::Repeatable, now_us }
    }

    fn resolved_slot(pin: &AffinityPin, pins: &AffinityIndex) -> Option<u32> {
        match pin.resolve(pins, request_at(0)) {
            PinnedEndpoint::Available(target) => Some(target.id.slot),
            _ => None,
        }
    }

    #[test]
    fn secrets_file_with_invalid_line_is_rejected() {
        let (first, second) = ("0a".repeat(32), "FF".repeat(32));
        let read =
            CookieSecrets::parse(&format!("# new\n{first}\n\n{second}\r\n")).expect("secrets");
        assert_eq!(*read.0, [[10; 32], [255; 32]]);
        assert_eq!(CookieSecrets::parse(&read.to_text()), Ok(read.clone()));
        for (text, said) in [
            (String::new(), "holds no secret"),
            (first[..40].to_owned(), "has no secret in line 1"),
            (format!("{first}\n{}", &second[..63]), "has no secret in line 2"),
            (format!("{}\n", "xy".repeat(32)), "has no secret in line 1"),
            (format!("{first}\n").repeat(17), "holds more than 16 secrets"),
        ] {
            assert_eq!(CookieSecrets::parse(&text).err().as_deref(), Some(said));
        }
        assert!(!format!("{read:?}").contains("10"), "{read:?}");
    }

    #[test]
    fn restored_endpoint_gets_its_pins_per_failback_policy() {
        for on_return in [FailbackPolicy::ReturnToPreferred, FailbackPolicy::StayOnCurrent] {
            let cookie = cookie(on_return);
            let (all, without) = (pins(&[0, 1, 2, 3], &[]), pins(&[0, 2, 3], &[]));
            let pin = AffinityPin::new(name(1), 10);
            assert_eq!(resolved_slot(&pin, &all), Some(1));
            assert_eq!(pin.updated_after(name(1), false, (&all, &cookie), (0, 11)), None);
            assert_eq!(resolved_slot(&pin, &without), None);
            let moved = pin
                .updated_after(name(2), false, (&without, &cookie), (0, 11))
                .expect("another pin");
            assert_eq!(
                resolved_slot(&moved, &without),
                Some(2),
                "it does not wander about meanwhile"
            );
            let expected_slot = if on_return == FailbackPolicy::ReturnToPreferred { 1 } else { 2 };
            assert_eq!(resolved_slot(&moved, &all), Some(expected_slot));
            let renewed =
                moved.updated_after(name(expected_slot as u16), false, (&all, &cookie), (0, 12));
            let expected = (expected_slot == 1).then(|| AffinityPin::new(name(1), 12));
            assert_eq!(renewed, expected);
        }
    }

    #[test]
    fn pin_to_suspect_endpoint_is_kept() {
        let (cookie, suspected) = (cookie(FailbackPolicy::StayOnCurrent), pins(&[0, 2, 3], &[1]));
        let pin = AffinityPin::new(name(1), 10);
        assert_eq!(resolved_slot(&pin, &suspected), None);
        assert_eq!(pin.updated_after(name(2), false, (&suspected, &cookie), (0, 11)), None);
        let failed = pin.updated_after(name(2), true, (&suspected, &cookie), (0, 11));
        assert_eq!(failed, Some(AffinityPin::new(name(2), 11)), "but not where that failed it");
        assert_eq!(resolved_slot(&pin, &pins(&[], &[0, 1])), Some(1), "nobody else is left");
    }

    #[test]
    fn pin_past_half_its_ttl_is_renewed() {
        let (cookie, pins) = (cookie(FailbackPolicy::ReturnToPreferred), pins(&[0, 1], &[]));
        let pin = AffinityPin::new(name(1), 1_000);
        assert!(!pin.is_expired(&cookie, 900), "a clock may be behind");
        assert!(!pin.is_expired(&cookie, 1_099) && pin.is_expired(&cookie, 1_100));
        assert_eq!(pin.updated_after(name(1), false, (&pins, &cookie), (0, 1_049)), None);
        let renewed = pin.updated_after(name(1), false, (&pins, &cookie), (0, 1_050));
        assert_eq!(renewed, Some(AffinityPin::new(name(1), 1_050)));
    }

    #[test]
    fn pin_to_removed_endpoint_is_replaced() {
        let (cookie, pins) = (cookie(FailbackPolicy::ReturnToPreferred), pins(&[0, 1], &[]));
        let pin = AffinityPin::new(name(9), 10);
        assert!(matches!(pin.resolve(&pins, request_at(0)), PinnedEndpoint::Unknown));
        assert_eq!(
            pin.updated_after(name(1), false, (&pins, &cookie), (0, 11)),
            Some(AffinityPin::new(name(1), 11))
        );
    }

    #[test]
    fn nonrepeatable_request_avoids_stalled_pinned_endpoint() {
        let pins = pins(&[0, 1], &[]);
        let pin = AffinityPin::new(name(1), 10);
        let PinnedEndpoint::Available(target) = pin.resolve(&pins, request_at(0)) else {
            panic!("serves")
        };
        target.stats.request_started(500);
        assert!(matches!(
            pin.resolve(
                &pins,
                AffinityRequest {
                    retry_safety: RetrySafety::NotRepeatable { waiting_before_us: 1_000 },
                    now_us: 0
                }
            ),
            PinnedEndpoint::TemporarilyUnavailable
        ));
        assert!(matches!(
            pin.resolve(
                &pins,
                AffinityRequest {
                    retry_safety: RetrySafety::NotRepeatable { waiting_before_us: 500 },
                    now_us: 0
                }
            ),
            PinnedEndpoint::Available(_)
        ));
    }

    #[test]
    fn draining_endpoint_serves_pins_until_drain_timeout() {
        let cookie = cookie(FailbackPolicy::StayOnCurrent);
        let mut pins = pins(&[0, 2], &[]);
        let PinnedEndpoint::Available(one) = pins.lookup(name(0), request_at(0)) else {
            panic!("serves")
        };
        let drained = Target { address: address(1), ..one.clone() };
        pins.zones[0].draining.push((drained, 5_000));
        let pin = AffinityPin::new(name(1), 10);
        assert!(
            matches!(pin.resolve(&pins, request_at(4_999)), PinnedEndpoint::Available(one) if one.address == address(1))
        );
        assert_eq!(pin.updated_after(name(1), false, (&pins, &cookie), (4_999, 11)), None);
        assert!(matches!(pin.resolve(&pins, request_at(5_000)), PinnedEndpoint::Down));
        let after = pin.updated_after(name(2), false, (&pins, &cookie), (5_000, 11));
        assert_eq!(after, Some(AffinityPin::new(name(2), 11)));
    }
}
