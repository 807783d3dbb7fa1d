//! Checks of pools, zones, endpoints and the detection window.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use super::check::{self, Check, Key, Setting};
use super::dns::{self, Target};
use super::server::HEAD_BYTES;
use super::steer;
use crate::config::file::{self, CapText, Endpoint, Located, Scalar, Table, Zone};
use crate::config::findings::Flaw;
use crate::config::units;
use crate::logic::breaker::{Breakers, Caps};
use crate::logic::director::What;
use crate::logic::discovery::{Entry, Wanted};
use crate::logic::id::{Place, is_name};
use crate::logic::topology::{Detect, EndpointSpec, PoolLimits, PoolSpec, StallBounds, ZoneSpec};

const WEIGHT: RangeInclusive<u32> = 1..=1_000;
const IN_A_ROW: RangeInclusive<u32> = 1..=1_000;
const IDLE_CONNECTIONS: RangeInclusive<usize> = 0..=100_000;
/// Far more than one process can hold.
const CAP: u32 = 10_000_000;
const LATE_AFTER: Duration = Duration::from_millis(250);

/// The first place of every zone name and endpoint address of one pool.
#[derive(Default)]
struct Seen {
    places: HashMap<Place, Range<usize>>,
    addresses: HashMap<SocketAddr, Range<usize>>,
    drained: Vec<What>,
    names: HashMap<Wanted, Range<usize>>,
}

impl Check<'_> {
    pub(super) fn pool(&mut self, name: &Located<String>, pool: Table<file::Pool>) -> PoolSpec {
        let Table { value: given, span: table } = pool;
        if !is_name(&name.value) {
            let message = format!("`{}` cannot name a pool", name.value);
            self.findings.error(&name.span, Flaw::new(message, NAME_MEND));
        }
        let speech = self.speech(&given, &table);
        let zones = given.zone.unwrap_or_default();
        if zones.is_empty() {
            let flaw = Flaw::new(
                format!("the pool `{}` has no zone", name.value),
                format!("add `[[pool.{}.zone]]` with `name` and `endpoints`", name.value),
            );
            self.missing(&table, "zone", flaw);
        }
        let mut seen = Seen::default();
        let pool: Arc<str> = Arc::from(name.value.as_str());
        let zones: Vec<ZoneSpec> =
            zones.into_iter().filter_map(|zone| self.zone(zone, &pool, &mut seen)).collect();
        let said =
            steer::Said { steer: given.steer, capacity: given.capacity, region: given.region };
        let steer = self.steer(said, &zones);
        let detect = self.detect(given.detect);
        let optimistic = self.switch(&given.optimistic, false);
        let key = Key::new(&table, "late_after", &given.late_after);
        let late_after = self.duration(&key, LATE_AFTER).value;
        let mut probes = self.probes(given.probe, &table, detect.timeout);
        // What listens elsewhere may know nothing of PROXY headers.
        for probe in probes.iter_mut().filter(|probe| probe.asks_the_endpoint()) {
            probe.proxy_protocol = speech.proxy_protocol;
        }
        PoolSpec {
            name: pool,
            zones,
            probes,
            speech,
            steer,
            detect,
            stall: self.stall(given.stall),
            optimistic,
            late_after,
            limits: self.pool_limits(given.limits),
            correlate: self.correlate(given.correlate),
            recover: self.recover(given.recover),
            evict: self.evict(given.evict),
            slo: self.slo(given.slo),
            drained: seen.drained,
            balance: self.balance(given.balance),
            affinity: self.affinity(given.affinity),
        }
    }

    fn zone(&mut self, zone: Table<Zone>, pool: &Arc<str>, seen: &mut Seen) -> Option<ZoneSpec> {
        let Table { value: mut given, span: table } = zone;
        let terms = self.terms(&table, &mut given);
        let place = match &given.name {
            Some(name) => self.place(name).filter(|place| {
                let flaw = Flaw::new(
                    format!("this pool already has the zone {place}"),
                    "list all endpoints of a zone together",
                );
                self.unique(&mut seen.places, place.clone(), &name.span, flaw)
            }),
            None => {
                let mend = "add `name = \"region/zone\"`";
                self.missing(&table, "name", Flaw::new("a zone needs a name", mend));
                None
            }
        };
        if self.switch(&given.drain, false) {
            seen.drained.extend(place.clone().map(What::Zone));
        }
        let given = given.endpoints.unwrap_or_default();
        if given.is_empty() {
            let flaw =
                Flaw::new("the zone has no endpoint", "add `endpoints = [\"10.0.1.11:9000\"]`");
            self.missing(&table, "endpoints", flaw);
        }
        let mut endpoints = Vec::new();
        for one in &given {
            let Some((target, weight)) = self.endpoint(one, seen) else { continue };
            match (target, &place) {
                (Target::Address(address), _) => endpoints.push(EndpointSpec { address, weight }),
                (Target::Name(wanted), Some(place)) => {
                    let (pool, place) = (Arc::clone(pool), place.clone());
                    self.names.push(Entry { pool, place, wanted, weight });
                }
                (Target::Name(_), None) => {}
            }
        }
        Some(ZoneSpec { place: place?, endpoints, terms })
    }

    fn endpoint(&mut self, given: &Located<Endpoint>, seen: &mut Seen) -> Option<(Target, u32)> {
        let mut drain = None;
        let (read, span, weight) = match &given.value {
            Endpoint::Address(text) => (dns::target(text), &given.span, 1),
            Endpoint::Table(table) => {
                drain = table.drain.as_ref().filter(|drain| drain.value);
                let weight =
                    self.whole(&Key::new(&given.span, "weight", &table.weight), &WEIGHT, 1);
                match (&table.address, &table.srv) {
                    (Some(address), None) => (dns::target(&address.value), &address.span, weight),
                    (None, Some(srv)) => {
                        (dns::service(&srv.value).map(Target::Name), &srv.span, weight)
                    }
                    (Some(_), Some(srv)) => {
                        let mend = "list them apart: { address = … }, { srv = … }";
                        let flaw = Flaw::new("an endpoint has an `address` or is a `srv`", mend);
                        self.findings.error(&srv.span, flaw);
                        return None;
                    }
                    (None, None) => {
                        let mend = "add `address = \"10.0.1.11:9000\"`";
                        let flaw = Flaw::new("an endpoint needs an address", mend);
                        if !self.gaps.has(&given.span, "srv") {
                            self.missing(&given.span, "address", flaw);
                        }
                        return None;
                    }
                }
            }
        };
        let mend = "list each once; use `weight` to give it more traffic";
        let twice = |what: String| Flaw::new(format!("this pool already has {what}"), mend);
        let is_new = match &read {
            Ok(Target::Address(address)) => {
                let flaw = twice(format!("the endpoint {address}"));
                self.unique(&mut seen.addresses, *address, span, flaw)
            }
            Ok(Target::Name(wanted)) => {
                let flaw = twice(format!("the name {wanted}"));
                self.unique(&mut seen.names, wanted.clone(), span, flaw)
            }
            Err(flaw) => {
                self.findings.error(span, flaw.clone());
                false
            }
        };
        match (read.ok().filter(|_| is_new)?, drain) {
            (Target::Address(address), Some(_)) => {
                seen.drained.push(What::Endpoint(address));
                Some((Target::Address(address), weight))
            }
            (Target::Name(_), Some(drain)) => {
                let mend = "drain its zone, or one of its addresses with `gapless drain`";
                let flaw = Flaw::new("what a name leads to cannot be drained here", mend);
                self.findings.error(&drain.span, flaw);
                None
            }
            (target, None) => Some((target, weight)),
        }
    }

    /// A `region/zone`, in a zone's name or in `self`.
    pub(super) fn place(&mut self, given: &Located<String>) -> Option<Place> {
        let place = Place::parse(&given.value);
        if place.is_none() {
            let message = format!("`{}` is not a region and a zone", given.value);
            let mend = "write it as \"region/zone\", such as \"us-south/us-south-1\"; \
                        names are letters, digits, `-`, `_` and `.`";
            self.findings.error(&given.span, Flaw::new(message, mend));
        }
        place
    }

    fn detect(&mut self, detect: Option<Table<file::Detect>>) -> Detect {
        let Table { value: given, span: table } = detect.unwrap_or_default();
        let default = Detect::default();
        let key = Key::new(&table, "interval", &given.interval);
        let interval = self.duration(&key, default.interval);
        let key = Key::new(&table, "timeout", &given.timeout);
        let timeout = self.duration(&key, default.timeout);
        let key = Key::new(&table, "fast_interval", &given.fast_interval);
        let fast_interval = self.duration(&key, default.fast_interval);
        let key = Key::new(&table, "down_interval", &given.down_interval);
        let down_interval = self.duration(&key, default.down_interval);
        let key = Key::new(&table, "down_after", &given.down_after);
        let down_after = self.whole(&key, &IN_A_ROW, default.down_after);
        let key = Key::new(&table, "up_after", &given.up_after);
        let up_after = self.whole(&key, &IN_A_ROW, default.up_after);

        // Periods are counted from start to start, and an endpoint has one probe at a time: a probe
        // that may outlast its period would stretch it without a word.
        self.not_longer(("timeout", &timeout), ("interval", &interval));
        self.not_longer(("timeout", &timeout), ("down_interval", &down_interval));
        self.not_longer(("fast_interval", &fast_interval), ("interval", &interval));
        let detect = Detect {
            interval: interval.value,
            timeout: timeout.value,
            fast_interval: fast_interval.value,
            down_interval: down_interval.value,
            down_after,
            up_after,
            target: None,
        };
        let key = Key::new(&table, "target", &given.target);
        let target = self.target(&key, &detect, &[&interval, &timeout, &fast_interval]);
        Detect { target, ..detect }
    }

    fn stall(&mut self, stall: Option<Table<file::Stall>>) -> StallBounds {
        let Table { value: given, span: table } = stall.unwrap_or_default();
        let default = StallBounds::default();
        let floor = self.duration(&Key::new(&table, "floor", &given.floor), default.floor);
        let ceiling = self.duration(&Key::new(&table, "ceiling", &given.ceiling), default.ceiling);
        self.not_longer(("floor", &floor), ("ceiling", &ceiling));
        StallBounds { floor: floor.value, ceiling: ceiling.value }
    }

    /// Reports a duration that is longer than one that it must fit into.
    pub(super) fn not_longer(
        &mut self,
        (inner_name, inner): (&str, &Setting<Duration>),
        (outer_name, outer): (&str, &Setting<Duration>),
    ) {
        if inner.value <= outer.value {
            return;
        }
        let Some((span, second)) = inner.clash(outer) else {
            return;
        };
        let flaw = Flaw::new(
            format!(
                "`{inner_name}` ({}) is longer than `{outer_name}` ({})",
                inner.shown(),
                outer.shown()
            ),
            format!(
                "set `{inner_name}` to \"{}\" or less, or `{outer_name}` to \"{}\" or more",
                units::duration_text(outer.value),
                units::duration_text(inner.value)
            ),
        );
        let finding = self.findings.error(&span, flaw);
        if let Some(second) = second {
            finding.also(&second, "longer than this");
        }
    }

    fn pool_limits(&mut self, limits: Option<Table<file::PoolLimits>>) -> PoolLimits {
        let Table { value: given, span: table } = limits.unwrap_or_default();
        let default = PoolLimits::default();
        let key = Key::new(&table, "idle_connections", &given.idle_connections);
        let idle_connections = self.whole(&key, &IDLE_CONNECTIONS, default.idle_connections);
        let key = Key::new(&table, "idle_timeout", &given.idle_timeout);
        let idle_timeout = self.duration(&key, default.idle_timeout).value;
        let key = Key::new(&table, "response_head", &given.response_head);
        let response_head_bytes = self.size(&key, &HEAD_BYTES, default.response_head_bytes);
        let breakers =
            Breakers { endpoint: self.caps(given.endpoint), pool: self.caps(given.pool) };
        PoolLimits { idle_connections, idle_timeout, response_head_bytes, breakers }
    }

    fn caps(&mut self, caps: Option<Table<file::Caps>>) -> Caps {
        let Table { value: given, span: table } = caps.unwrap_or_default();
        Caps {
            connections: self.cap(&Key::new(&table, "connections", &given.connections), 1),
            requests: self.cap(&Key::new(&table, "requests", &given.requests), 1),
            pending: self.cap(&Key::new(&table, "pending", &given.pending), 0),
            retries: self.cap(&Key::new(&table, "retries", &given.retries), 0),
        }
    }

    fn cap(&mut self, key: &Key<'_, CapText>, least: u32) -> Option<u32> {
        let read = |CapText(given): &CapText| match given {
            Scalar::Text(text) if text == "unlimited" => Ok(None),
            _ => check::whole_from(given, key.name, &(least..=CAP))
                .map(Some)
                .map_err(|flaw| Flaw { mend: format!("{}, or \"unlimited\"", flaw.mend), ..flaw }),
        };
        self.setting(key, None, read).value
    }
}

/// What names may be made of.
pub(super) const NAME_MEND: &str = "use letters, digits, `-`, `_` and `.`";

/// An endpoint is connected to, so it needs one address and one port.
pub(super) fn reachable(address: SocketAddr) -> Result<SocketAddr, Flaw> {
    if address.port() == 0 {
        let mend = "write the port that the endpoint listens on";
        return Err(Flaw::new("nothing can be reached at port 0", mend));
    }
    if address.ip().is_unspecified() {
        let mend =
            format!("write the endpoint's own address, such as \"127.0.0.1:{}\"", address.port());
        return Err(Flaw::new(format!("{} stands for every address", address.ip()), mend));
    }
    Ok(address)
}
