//! Requests of one client that stay with one endpoint.
//!
//! By a header or the client's address they do so as by any key ([`super::balance::keyed`]), without
//! anything being kept. By a cookie they carry a [`Pin`], which decides inside the outcome of steering:
//! an endpoint that takes traffic gets the requests that are pinned to it, in whatever tier it is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::balance::{HashKey, hash};
use super::snapshot::Sending;
use super::tier::{Cell, Target};

/// By what requests stay with an endpoint (`affinity` in the file).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// By a key of theirs.
    Key(HashKey),
    /// By a cookie of ours.
    Cookie(Cookie),
}

/// A cookie that names an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// What it is called.
    pub name: Arc<str>,
    /// How long it lasts after it was last written; absent, for as long as the client keeps it.
    pub ttl: Option<Duration>,
    /// What becomes of a client whose endpoint is back.
    pub on_return: OnReturn,
    /// How long an endpoint that is drained still gets the requests that are pinned to it.
    pub drain: Duration,
    /// What seals it; absent, what the instance has.
    pub secrets: Option<Secrets>,
}

/// [`Cookie::drain`], unless said otherwise.
pub const DRAIN: Duration = Duration::from_mins(10);

/// What becomes of a client whose endpoint failed and is back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnReturn {
    /// It returns there.
    #[default]
    First,
    /// It stays where it went.
    Stay,
}

/// What seals cookies: the first one seals, and all of them open.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets(pub Arc<[[u8; 32]]>);

/// Secrets that a file may hold, at most.
const SECRETS_AT_MOST: usize = 16;

impl Secrets {
    /// Reads one secret a line, of 64 hexadecimal digits each; lines that are empty or begin with `#`
    /// are passed over.
    ///
    /// # Errors
    /// What is wrong, without showing any of it.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut secrets = Vec::new();
        for (line, number) in text.lines().map(str::trim).zip(1..) {
            if !line.is_empty() && !line.starts_with('#') {
                let secret = secret(line);
                secrets.push(secret.ok_or_else(|| format!("has no secret in line {number}"))?);
            }
        }
        match secrets.len() {
            0 => Err("holds no secret".to_owned()),
            1..=SECRETS_AT_MOST => Ok(Self(secrets.into())),
            _ => Err(format!("holds more than {SECRETS_AT_MOST} secrets")),
        }
    }

    /// What is read so.
    #[must_use]
    pub fn text(&self) -> String {
        let line = |secret: &[u8; 32]| {
            let digits = secret.iter().map(|byte| format!("{byte:02x}"));
            digits.chain(["\n".to_owned()]).collect::<String>()
        };
        self.0.iter().map(line).collect()
    }
}

fn secret(line: &str) -> Option<[u8; 32]> {
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

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

/// What a client's cookie says. Endpoints are named by [`super::balance::hash::identity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Where the client was first.
    pub first: u64,
    /// Where it is, while that one does not serve.
    pub now: u64,
    /// When this was written, in seconds since 1970.
    pub written_s: u32,
}

/// How the endpoint of a pin stands.
#[derive(Clone, Copy, Debug)]
pub enum Seat<'a> {
    /// It takes the request.
    Serves(&'a Target),
    /// It will soon be known whether it does, or it takes others.
    Away,
    /// It takes nothing.
    Down,
    /// It is not declared any more.
    Unknown,
}

/// The endpoints of a pool as pins find them.
#[derive(Clone, Debug)]
pub struct Pins {
    /// Every endpoint's identity, zone and position in it; in order.
    seats: Arc<[(u64, u32, u32)]>,
    zones: Vec<PinZone>,
}

/// Those endpoints of a zone that take pinned requests.
#[derive(Clone, Debug, Default)]
pub struct PinZone {
    /// Any of them.
    pub clear: Option<Cell>,
    /// Those that may be sent again.
    pub open: Option<Cell>,
    /// None, where there is anybody else.
    pub suspects: Option<Cell>,
    /// Those that get nothing else any more, and until when (in microseconds since the process's epoch):
    /// an operator drains them.
    pub drained: Vec<(Target, u64)>,
}

/// A request, as pins are asked for it.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// What may be done with it.
    pub sending: Sending,
    /// When, in microseconds since the process's epoch.
    pub now_us: u64,
}

impl Pins {
    /// The seats of a pool, which stay until it is configured anew, by their zones as they are now.
    #[must_use]
    pub fn new(seats: &Arc<[(u64, u32, u32)]>, zones: Vec<PinZone>) -> Self {
        Self { seats: Arc::clone(seats), zones }
    }

    /// How the endpoint stands towards a request.
    #[must_use]
    pub fn seat(&self, identity: u64, asking: Asking) -> Seat<'_> {
        let Asking { sending, now_us } = asking;
        let first = self.seats.partition_point(|&(known, ..)| known < identity);
        let Some(&(_, zone, position)) = self.seats.get(first).filter(|seat| seat.0 == identity)
        else {
            return Seat::Unknown;
        };
        let Some(zone) = self.zones.get(zone as usize) else { return Seat::Down };
        let of =
            |cell: &'_ Option<Cell>| cell.as_ref().is_some_and(|c| c.takes(position).is_some());
        let cell = match sending {
            Sending::Repeatable => &zone.open,
            Sending::Once { .. } => &zone.clear,
        };
        let found = cell.as_ref().and_then(|cell| cell.takes(position));
        match (found, sending) {
            (Some(target), Sending::Once { before_us })
                if target.live.waits_since_before(before_us) =>
            {
                Seat::Away
            }
            (Some(target), _) => Seat::Serves(target),
            (None, _) if of(&zone.open) => Seat::Away,
            (None, _) if of(&zone.suspects) => self.suspect(&zone.suspects, position),
            (None, _) => {
                let is_it = |one: &&(Target, u64)| hash::identity(one.0.address) == identity;
                let drained = zone.drained.iter().find(is_it).filter(|(_, until)| now_us < *until);
                drained.map_or(Seat::Down, |(target, _)| Seat::Serves(target))
            }
        }
    }

    /// A suspect serves where there is nobody else.
    fn suspect<'a>(&self, cell: &'a Option<Cell>, position: u32) -> Seat<'a> {
        let has_better = self.zones.iter().any(|zone| zone.open.is_some());
        let found = cell.as_ref().and_then(|cell| cell.takes(position));
        found.filter(|_| !has_better).map_or(Seat::Away, Seat::Serves)
    }
}

impl Pin {
    /// A client's first.
    #[must_use]
    pub fn new(endpoint: u64, now_s: u32) -> Self {
        Self { first: endpoint, now: endpoint, written_s: now_s }
    }

    /// Whether it is too old to be believed.
    #[must_use]
    pub fn is_over(&self, cookie: &Cookie, now_s: u32) -> bool {
        cookie
            .ttl
            .is_some_and(|ttl| u64::from(now_s.saturating_sub(self.written_s)) >= ttl.as_secs())
    }

    /// Where its client is to go: to the first one if that serves, else to where it is.
    #[must_use]
    pub fn leads<'a>(&self, pins: &'a Pins, asking: Asking) -> Seat<'a> {
        let first = pins.seat(self.first, asking);
        if self.now == self.first || matches!(first, Seat::Serves(_)) {
            return first;
        }
        pins.seat(self.now, asking)
    }

    /// What is to be written once `served` has answered; `None` if that is what the client has.
    ///
    /// A client that only went by its endpoint, because that one is suspect, slow or full, keeps its
    /// pin. `failed` says that it failed this request.
    #[must_use]
    pub fn after(
        &self,
        served: u64,
        failed: bool,
        (pins, cookie): (&Pins, &Cookie),
        (now_us, now_s): (u64, u32),
    ) -> Option<Self> {
        let asking = Asking { sending: Sending::Repeatable, now_us };
        let written_s = now_s;
        if served == self.now {
            let age = u64::from(now_s.saturating_sub(self.written_s));
            let is_old = cookie.ttl.is_some_and(|ttl| age >= ttl.as_secs().div_ceil(2));
            return is_old.then_some(Self { written_s, ..*self });
        }
        let first = pins.seat(self.first, asking);
        if served == self.first {
            return Some(Self::new(served, now_s));
        }
        let now = pins.seat(self.now, asking);
        if !failed && !matches!(now, Seat::Down | Seat::Unknown) {
            return None;
        }
        Some(match (cookie.on_return, first) {
            (OnReturn::Stay, _) | (OnReturn::First, Seat::Unknown) => Self::new(served, now_s),
            (OnReturn::First, _) => Self { first: self.first, now: served, written_s },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::balance::hash::identity;
    use crate::logic::id::EndpointId;
    use std::net::SocketAddr;

    fn address(n: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 9_000 + n))
    }

    fn name(n: u16) -> u64 {
        identity(address(n))
    }

    /// Four endpoints in one zone, of which these are open, and these suspects.
    fn pins(open: &[u32], suspects: &[u32]) -> Pins {
        let target = |n: u16| Target {
            id: EndpointId::new(u32::from(n), 0),
            address: address(n),
            zone: 0,
            weight: 1,
            live: Arc::default(),
            kin: Arc::default(),
        };
        let targets: Arc<[Target]> = (0..4).map(target).collect();
        let cell = |positions: &[u32]| {
            let active: Vec<(u32, u32)> = positions.iter().map(|&one| (one, 1_000)).collect();
            Cell::new(&targets, &active)
        };
        let mut seats: Vec<_> = (0..4).map(|n| (name(n), 0, u32::from(n))).collect();
        seats.sort_unstable();
        let (clear, suspects) = (cell(open), cell(suspects));
        Pins::new(
            &seats.into(),
            vec![PinZone { open: clear.clone(), clear, suspects, drained: Vec::new() }],
        )
    }

    fn cookie(on_return: OnReturn) -> Cookie {
        let ttl = Some(Duration::from_secs(100));
        Cookie { name: "pin".into(), ttl, on_return, drain: DRAIN, secrets: None }
    }

    fn at(now_us: u64) -> Asking {
        Asking { sending: Sending::Repeatable, now_us }
    }

    fn leads(pin: &Pin, pins: &Pins) -> Option<u32> {
        match pin.leads(pins, at(0)) {
            Seat::Serves(target) => Some(target.id.slot),
            _ => None,
        }
    }

    #[test]
    fn a_file_of_secrets_is_read_whole_or_not_at_all() {
        let (first, second) = ("0a".repeat(32), "FF".repeat(32));
        let read = Secrets::read(&format!("# new\n{first}\n\n{second}\r\n")).expect("secrets");
        assert_eq!(*read.0, [[10; 32], [255; 32]]);
        assert_eq!(Secrets::read(&read.text()), Ok(read.clone()));
        for (text, said) in [
            (String::new(), "holds no secret"),
            (first[..40].to_owned(), "has no secret in line 1"),
            (format!("{first}\n{}", &second[..63]), "has no secret in line 2"),
            (format!("{}\n", "xy".repeat(32)), "has no secret in line 1"),
            (format!("{first}\n").repeat(17), "holds more than 16 secrets"),
        ] {
            assert_eq!(Secrets::read(&text).err().as_deref(), Some(said));
        }
        assert!(!format!("{read:?}").contains("10"), "{read:?}");
    }

    #[test]
    fn a_client_returns_to_its_first_endpoint_or_stays_as_it_is_told() {
        for on_return in [OnReturn::First, OnReturn::Stay] {
            let cookie = cookie(on_return);
            let (all, without) = (pins(&[0, 1, 2, 3], &[]), pins(&[0, 2, 3], &[]));
            let pin = Pin::new(name(1), 10);
            assert_eq!(leads(&pin, &all), Some(1));
            assert_eq!(pin.after(name(1), false, (&all, &cookie), (0, 11)), None);
            assert_eq!(leads(&pin, &without), None);
            let moved =
                pin.after(name(2), false, (&without, &cookie), (0, 11)).expect("another pin");
            assert_eq!(leads(&moved, &without), Some(2), "it does not wander about meanwhile");
            let back = if on_return == OnReturn::First { 1 } else { 2 };
            assert_eq!(leads(&moved, &all), Some(back));
            let settled = moved.after(name(back as u16), false, (&all, &cookie), (0, 12));
            let expected = (back == 1).then(|| Pin::new(name(1), 12));
            assert_eq!(settled, expected);
        }
    }

    #[test]
    fn who_only_goes_by_its_endpoint_keeps_its_pin() {
        let (cookie, suspected) = (cookie(OnReturn::Stay), pins(&[0, 2, 3], &[1]));
        let pin = Pin::new(name(1), 10);
        assert_eq!(leads(&pin, &suspected), None);
        assert_eq!(pin.after(name(2), false, (&suspected, &cookie), (0, 11)), None);
        let failed = pin.after(name(2), true, (&suspected, &cookie), (0, 11));
        assert_eq!(failed, Some(Pin::new(name(2), 11)), "but not where that failed it");
        assert_eq!(leads(&pin, &pins(&[], &[0, 1])), Some(1), "nobody else is left");
    }

    #[test]
    fn pins_are_written_again_before_they_are_over() {
        let (cookie, pins) = (cookie(OnReturn::First), pins(&[0, 1], &[]));
        let pin = Pin::new(name(1), 1_000);
        assert!(!pin.is_over(&cookie, 900), "a clock may be behind");
        assert!(!pin.is_over(&cookie, 1_099) && pin.is_over(&cookie, 1_100));
        assert_eq!(pin.after(name(1), false, (&pins, &cookie), (0, 1_049)), None);
        let renewed = pin.after(name(1), false, (&pins, &cookie), (0, 1_050));
        assert_eq!(renewed, Some(Pin::new(name(1), 1_050)));
    }

    #[test]
    fn an_endpoint_that_is_not_declared_any_more_is_not_waited_for() {
        let (cookie, pins) = (cookie(OnReturn::First), pins(&[0, 1], &[]));
        let pin = Pin::new(name(9), 10);
        assert!(matches!(pin.leads(&pins, at(0)), Seat::Unknown));
        assert_eq!(
            pin.after(name(1), false, (&pins, &cookie), (0, 11)),
            Some(Pin::new(name(1), 11))
        );
    }

    #[test]
    fn what_must_not_run_twice_passes_by_a_pin_that_keeps_others_waiting() {
        let pins = pins(&[0, 1], &[]);
        let pin = Pin::new(name(1), 10);
        let Seat::Serves(target) = pin.leads(&pins, at(0)) else { panic!("serves") };
        target.live.enter(500);
        assert!(matches!(
            pin.leads(&pins, Asking { sending: Sending::Once { before_us: 1_000 }, now_us: 0 }),
            Seat::Away
        ));
        assert!(matches!(
            pin.leads(&pins, Asking { sending: Sending::Once { before_us: 500 }, now_us: 0 }),
            Seat::Serves(_)
        ));
    }

    #[test]
    fn who_is_drained_keeps_its_clients_for_a_time() {
        let cookie = cookie(OnReturn::Stay);
        let mut pins = pins(&[0, 2], &[]);
        let Seat::Serves(one) = pins.seat(name(0), at(0)) else { panic!("serves") };
        let drained = Target { address: address(1), ..one.clone() };
        pins.zones[0].drained.push((drained, 5_000));
        let pin = Pin::new(name(1), 10);
        assert!(
            matches!(pin.leads(&pins, at(4_999)), Seat::Serves(one) if one.address == address(1))
        );
        assert_eq!(pin.after(name(1), false, (&pins, &cookie), (4_999, 11)), None);
        assert!(matches!(pin.leads(&pins, at(5_000)), Seat::Down));
        let after = pin.after(name(2), false, (&pins, &cookie), (5_000, 11));
        assert_eq!(after, Some(Pin::new(name(2), 11)));
    }
}
