//! Checks of pools, zones and endpoints, and of detection windows.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use super::endpoint_target::{self, EndpointTarget};
use super::server::HEADER_BYTES_RANGE;
use super::steer;
use super::validator;
use super::validator::{SettingKey, Validator};
use crate::config::diagnostics::Problem;
use crate::config::file::{self, Endpoint, LimitText, Located, LocatedTable, Scalar, Zone};
use crate::logic::discovery::{DiscoveryEntry, DiscoveryName};
use crate::logic::model::id::{Locality, is_valid_name};
use crate::logic::model::selector::TopologySelector;
use crate::logic::model::topology::{
    DetectionSpec, EndpointSpec, PoolLimitSpec, PoolSpec, StallBounds, ZoneSpec,
};
use crate::logic::request::limits::{BreakerLimits, CircuitBreakers};

const WEIGHT_RANGE: RangeInclusive<u32> = 1..=1_000;
const CONSECUTIVE_RANGE: RangeInclusive<u32> = 1..=1_000;
const IDLE_CONNECTIONS_RANGE: RangeInclusive<usize> = 0..=100_000;
/// Far more connections than one process can have.
const MAX_LIMIT: u32 = 10_000_000;
const DEFAULT_LATE_AFTER: Duration = Duration::from_millis(250);

/// The first place of every zone name, address and DNS name of one pool, to report duplicates.
#[derive(Default)]
struct SeenInPool {
    zones: HashMap<Locality, Range<usize>>,
    addresses: HashMap<SocketAddr, Range<usize>>,
    drained: Vec<TopologySelector>,
    dns_names: HashMap<DiscoveryName, Range<usize>>,
}

impl Validator<'_> {
    pub(super) fn pool(
        &mut self,
        name: &Located<String>,
        pool: LocatedTable<file::Pool>,
    ) -> PoolSpec {
        let LocatedTable { value: given, span: table } = pool;
        if !is_valid_name(&name.value) {
            let message = format!("`{}` cannot name a pool", name.value);
            self.diagnostics.error(&name.span, Problem::new(message, NAME_HELP));
        }
        let protocol = self.upstream_protocol(&given, &table);
        let zones = given.zone.unwrap_or_default();
        if zones.is_empty() {
            let problem = Problem::new(
                format!("the pool `{}` has no zone", name.value),
                format!("add `[[pool.{}.zone]]` with `name` and `endpoints`", name.value),
            );
            self.report_missing(&table, "zone", problem);
        }
        let mut seen = SeenInPool::default();
        let pool: Arc<str> = Arc::from(name.value.as_str());
        let zones: Vec<ZoneSpec> =
            zones.into_iter().filter_map(|zone| self.zone(zone, &pool, &mut seen)).collect();
        let steering = steer::SteeringSettings {
            steer: given.steer,
            capacity: given.capacity,
            region: given.region,
        };
        let steer = self.steer(steering, &zones);
        let detect = self.detect(given.detect);
        let optimistic = self.bool_or(&given.optimistic, false);
        let key = SettingKey::new(&table, "late_after", &given.late_after);
        let late_after = self.duration(&key, DEFAULT_LATE_AFTER).value;
        let mut probes = self.probes(given.probe, &table, detect.timeout);
        // A server at another address may not support PROXY headers.
        for probe in probes.iter_mut().filter(|probe| probe.is_at_endpoint_address()) {
            probe.proxy_protocol = protocol.proxy_protocol;
        }
        PoolSpec {
            name: pool,
            zones,
            probes,
            upstream_protocol: protocol,
            steer,
            detect,
            stall: self.stall(given.stall),
            is_optimistic: optimistic,
            late_after,
            limits: self.pool_limits(given.limits),
            correlation: self.correlate(given.correlate),
            recovery: self.recover(given.recover),
            eviction: self.evict(given.evict),
            slo: self.slo(given.slo),
            drained_scopes: seen.drained,
            balance: self.balance(given.balance),
            affinity: self.affinity(given.affinity),
        }
    }

    fn zone(
        &mut self,
        zone: LocatedTable<Zone>,
        pool: &Arc<str>,
        seen: &mut SeenInPool,
    ) -> Option<ZoneSpec> {
        let LocatedTable { value: mut given, span: table } = zone;
        let terms = self.zone_terms(&table, &mut given);
        let place = match &given.name {
            Some(name) => self.zone_name(name).filter(|place| {
                let problem = Problem::new(
                    format!("this pool already has the zone {place}"),
                    "list all endpoints of a zone together",
                );
                self.is_unique(&mut seen.zones, place.clone(), &name.span, problem)
            }),
            None => {
                let help = "add `name = \"region/zone\"`";
                self.report_missing(&table, "name", Problem::new("a zone needs a name", help));
                None
            }
        };
        if self.bool_or(&given.drain, false) {
            seen.drained.extend(place.clone().map(TopologySelector::Zone));
        }
        let given = given.endpoints.unwrap_or_default();
        if given.is_empty() {
            let problem =
                Problem::new("the zone has no endpoint", "add `endpoints = [\"10.0.1.11:9000\"]`");
            self.report_missing(&table, "endpoints", problem);
        }
        let mut endpoints = Vec::new();
        for one in &given {
            let Some((target, weight)) = self.endpoint(one, seen) else { continue };
            match (target, &place) {
                (EndpointTarget::Address(address), _) => {
                    endpoints.push(EndpointSpec { address, weight });
                }
                (EndpointTarget::Name(wanted), Some(place)) => {
                    let (pool, place) = (Arc::clone(pool), place.clone());
                    self.dns_entries.push(DiscoveryEntry {
                        pool,
                        place,
                        discovery_name: wanted,
                        weight,
                    });
                }
                (EndpointTarget::Name(_), None) => {}
            }
        }
        Some(ZoneSpec { locality: place?, endpoints, settings: terms })
    }

    fn endpoint(
        &mut self,
        given: &Located<Endpoint>,
        seen: &mut SeenInPool,
    ) -> Option<(EndpointTarget, u32)> {
        let mut drain = None;
        let (target, span, weight) = match &given.value {
            Endpoint::Address(text) => (endpoint_target::parse_target(text), &given.span, 1),
            Endpoint::Table(table) => {
                drain = table.drain.as_ref().filter(|drain| drain.value);
                let weight = self.integer(
                    &SettingKey::new(&given.span, "weight", &table.weight),
                    &WEIGHT_RANGE,
                    1,
                );
                match (&table.address, &table.srv) {
                    (Some(address), None) => {
                        (endpoint_target::parse_target(&address.value), &address.span, weight)
                    }
                    (None, Some(srv)) => (
                        endpoint_target::parse_service(&srv.value).map(EndpointTarget::Name),
                        &srv.span,
                        weight,
                    ),
                    (Some(_), Some(srv)) => {
                        let help = "list them apart: { address = … }, { srv = … }";
                        let problem =
                            Problem::new("an endpoint has an `address` or is a `srv`", help);
                        self.diagnostics.error(&srv.span, problem);
                        return None;
                    }
                    (None, None) => {
                        let help = "add `address = \"10.0.1.11:9000\"`";
                        let problem = Problem::new("an endpoint needs an address", help);
                        if !self.unread.has_key(&given.span, "srv") {
                            self.report_missing(&given.span, "address", problem);
                        }
                        return None;
                    }
                }
            }
        };
        let help = "list each once; use `weight` to give it more traffic";
        let duplicate = |what: String| Problem::new(format!("this pool already has {what}"), help);
        let is_new = match &target {
            Ok(EndpointTarget::Address(address)) => {
                self.check_own_listener(*address, span);
                let problem = duplicate(format!("the endpoint {address}"));
                self.is_unique(&mut seen.addresses, *address, span, problem)
            }
            Ok(EndpointTarget::Name(wanted)) => {
                let problem = duplicate(format!("the name {wanted}"));
                self.is_unique(&mut seen.dns_names, wanted.clone(), span, problem)
            }
            Err(problem) => {
                self.diagnostics.error(span, problem.clone());
                false
            }
        };
        match (target.ok().filter(|_| is_new)?, drain) {
            (EndpointTarget::Address(address), Some(_)) => {
                seen.drained.push(TopologySelector::Endpoint(address));
                Some((EndpointTarget::Address(address), weight))
            }
            (EndpointTarget::Name(_), Some(drain)) => {
                let help = "drain its zone, or one of its addresses with `gapless drain`";
                let problem = Problem::new("endpoints of a name cannot be drained here", help);
                self.diagnostics.error(&drain.span, problem);
                None
            }
            (target, None) => Some((target, weight)),
        }
    }

    /// Reports an endpoint at which this instance itself listens: its requests would come back.
    fn check_own_listener(&mut self, endpoint: SocketAddr, span: &Range<usize>) {
        let is_own = |listener: SocketAddr| {
            let is_reached = listener.ip() == endpoint.ip()
                || listener.ip().is_unspecified()
                    && endpoint.ip().is_loopback()
                    && listener.is_ipv4() == endpoint.is_ipv4();
            is_reached && listener.port() == endpoint.port()
        };
        let own = self.own_listeners.iter().find(|(listener, _)| is_own(*listener));
        if let Some((listener, kind)) = own {
            let message = format!("{endpoint} is {kind} of this instance ({listener})");
            let help = "write the address of another program: requests would come back for ever";
            self.diagnostics.error(span, Problem::new(message, help));
        }
    }

    /// A `region/zone`, in a zone's name or in `self`.
    pub(super) fn zone_name(&mut self, given: &Located<String>) -> Option<Locality> {
        let place = Locality::parse(&given.value);
        if place.is_none() {
            let message = format!("`{}` is not a region and a zone", given.value);
            let help = "write it as \"region/zone\", such as \"us-south/us-south-1\"; \
                        names are letters, digits, `-`, `_` and `.`";
            self.diagnostics.error(&given.span, Problem::new(message, help));
        }
        place
    }

    fn detect(&mut self, detect: Option<LocatedTable<file::Detect>>) -> DetectionSpec {
        let LocatedTable { value: given, span: table } = detect.unwrap_or_default();
        let default = DetectionSpec::default();
        let key = SettingKey::new(&table, "interval", &given.interval);
        let interval = self.duration(&key, default.interval);
        let key = SettingKey::new(&table, "timeout", &given.timeout);
        let timeout = self.duration(&key, default.timeout);
        let key = SettingKey::new(&table, "fast_interval", &given.fast_interval);
        let fast_interval = self.duration(&key, default.fast_interval);
        let key = SettingKey::new(&table, "down_interval", &given.down_interval);
        let down_interval = self.duration(&key, default.down_interval);
        let key = SettingKey::new(&table, "down_after", &given.down_after);
        let down_after = self.integer(&key, &CONSECUTIVE_RANGE, default.down_after);
        let key = SettingKey::new(&table, "up_after", &given.up_after);
        let up_after = self.integer(&key, &CONSECUTIVE_RANGE, default.up_after);

        // Periods are counted from start to start, and an endpoint has one probe at a time: a probe
        // that outlasts its period would stretch the period silently.
        self.check_not_longer(("timeout", &timeout), ("interval", &interval));
        self.check_not_longer(("timeout", &timeout), ("down_interval", &down_interval));
        self.check_not_longer(("fast_interval", &fast_interval), ("interval", &interval));
        let detect = DetectionSpec {
            interval: interval.value,
            timeout: timeout.value,
            fast_interval: fast_interval.value,
            down_interval: down_interval.value,
            down_after,
            up_after,
            target: None,
        };
        let key = SettingKey::new(&table, "target", &given.target);
        let target = self.detection_target(&key, &detect, &[&interval, &timeout, &fast_interval]);
        DetectionSpec { target, ..detect }
    }

    fn stall(&mut self, stall: Option<LocatedTable<file::Stall>>) -> StallBounds {
        let LocatedTable { value: given, span: table } = stall.unwrap_or_default();
        let default = StallBounds::default();
        let floor = self.duration(&SettingKey::new(&table, "floor", &given.floor), default.floor);
        let ceiling =
            self.duration(&SettingKey::new(&table, "ceiling", &given.ceiling), default.ceiling);
        self.check_not_longer(("floor", &floor), ("ceiling", &ceiling));
        StallBounds { floor: floor.value, ceiling: ceiling.value }
    }

    fn pool_limits(&mut self, limits: Option<LocatedTable<file::PoolLimits>>) -> PoolLimitSpec {
        let LocatedTable { value: given, span: table } = limits.unwrap_or_default();
        let default = PoolLimitSpec::default();
        let key = SettingKey::new(&table, "idle_connections", &given.idle_connections);
        let idle_connections =
            self.integer(&key, &IDLE_CONNECTIONS_RANGE, default.max_idle_connections);
        let key = SettingKey::new(&table, "idle_timeout", &given.idle_timeout);
        let idle_timeout = self.duration(&key, default.idle_timeout).value;
        let key = SettingKey::new(&table, "response_head", &given.response_head);
        let response_head_bytes =
            self.size(&key, &HEADER_BYTES_RANGE, default.max_response_head_bytes);
        let breakers = CircuitBreakers {
            endpoint: self.breaker_limits(given.endpoint),
            pool: self.breaker_limits(given.pool),
        };
        PoolLimitSpec {
            max_idle_connections: idle_connections,
            idle_timeout,
            max_response_head_bytes: response_head_bytes,
            circuit_breakers: breakers,
        }
    }

    fn breaker_limits(&mut self, caps: Option<LocatedTable<file::Caps>>) -> BreakerLimits {
        let LocatedTable { value: given, span: table } = caps.unwrap_or_default();
        BreakerLimits {
            connections: self.limit(&SettingKey::new(&table, "connections", &given.connections), 1),
            requests: self.limit(&SettingKey::new(&table, "requests", &given.requests), 1),
            pending: self.limit(&SettingKey::new(&table, "pending", &given.pending), 0),
            retries: self.limit(&SettingKey::new(&table, "retries", &given.retries), 0),
        }
    }

    fn limit(&mut self, key: &SettingKey<'_, LimitText>, least: u32) -> Option<u32> {
        let read = |LimitText(given): &LimitText| match given {
            Scalar::Text(text) if text == "unlimited" => Ok(None),
            _ => validator::parse_integer(given, key.name, &(least..=MAX_LIMIT)).map(Some).map_err(
                |problem| Problem {
                    help: format!("{}, or \"unlimited\"", problem.help),
                    ..problem
                },
            ),
        };
        self.setting(key, None, read).value
    }
}

/// The help text for invalid names.
pub(super) const NAME_HELP: &str = "use letters, digits, `-`, `_` and `.`";
