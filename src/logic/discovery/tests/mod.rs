//! The scheduler and the composition of endpoints under a simulated clock.

mod endpoints;
mod schedule;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::logic::model::id::Locality;
use crate::logic::model::topology::{EndpointSpec, PoolSpec, Topology, ZoneSpec};

const S: Duration = Duration::from_secs(1);

fn test_ip(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn entry(name: DiscoveryName) -> DiscoveryEntry {
    let place = Locality::parse("r/a").expect("a place");
    DiscoveryEntry { pool: "web".into(), place, discovery_name: name, weight: 1 }
}

fn host(name: &str) -> DiscoveryName {
    DiscoveryName::Host { name: name.into(), port: 80 }
}

fn service(name: &str) -> DiscoveryName {
    DiscoveryName::Service { name: name.into() }
}

fn srv_target(priority: u16, weight: u16, target: &str) -> SrvTarget {
    SrvTarget { priority, weight, target: target.into(), port: 8_000 }
}

fn found_answer(last: &[u8], ttl: u64) -> LookupAnswer {
    let all = last.iter().map(|&last| test_ip(last)).collect();
    LookupAnswer::Found { records: LookupRecords::Addresses(all), ttl: Duration::from_secs(ttl) }
}

fn negative_answer(reason: NegativeReason) -> LookupAnswer {
    LookupAnswer::Negative { reason, ttl: None }
}

const NODATA: LookupAnswer = LookupAnswer::Negative { reason: NegativeReason::NoData, ttl: None };
const TIMEOUT: LookupAnswer = LookupAnswer::Failed(LookupFailure::Timeout);

/// A scheduler with a simulated clock.
struct LookupFixture {
    lookups: LookupScheduler,
    entries: Vec<DiscoveryEntry>,
    policy: LookupPolicy,
    now: Instant,
    down: BTreeSet<SocketAddr>,
    static_addresses: Vec<SocketAddr>,
}

impl LookupFixture {
    /// Names with IPv4 lookups only.
    fn new(names: Vec<DiscoveryName>) -> Self {
        Self::with(names, LookupPolicy { family: AddressFamily::Ipv4, ..LookupPolicy::default() })
    }

    fn with(names: Vec<DiscoveryName>, policy: LookupPolicy) -> Self {
        let now = Instant::now();
        let entries: Vec<DiscoveryEntry> = names.into_iter().map(entry).collect();
        let mut lookups = LookupScheduler::new(1, Vec::new());
        lookups.configure(&entries, &policy, now);
        let (down, static_addresses) = (BTreeSet::new(), Vec::new());
        Self { lookups, entries, policy, now, down, static_addresses }
    }

    /// The due questions as text.
    fn poll_questions(&mut self) -> Vec<String> {
        let due = self.lookups.poll(self.now);
        due.iter()
            .map(|question| format!("{} {}", question.name, question.record_type.as_str()))
            .collect()
    }

    fn answer(&mut self, name: &str, record: DnsRecordType, answer: LookupAnswer) -> LookupChange {
        let question = LookupQuestion { name: name.into(), record_type: record };
        self.lookups.on_answer(&question, answer, self.now)
    }

    /// Polls, asserts that only this question is due, and answers it.
    #[track_caller]
    fn answer_only_question(&mut self, name: &str, answer: LookupAnswer) -> LookupChange {
        assert_eq!(self.poll_questions(), [format!("{name} A")]);
        self.answer(name, DnsRecordType::A, answer)
    }

    fn time_to_next_lookup(&self) -> Duration {
        self.lookups.poll_timeout().expect("something is due").saturating_duration_since(self.now)
    }

    /// Advances the clock to the next lookup and asserts that it is within these bounds.
    #[track_caller]
    fn advance_to_next_lookup(&mut self, least: Duration, most: Duration) {
        let interval = self.time_to_next_lookup();
        assert!(
            (least..=most).contains(&interval),
            "{interval:?} is not within {least:?} and {most:?}"
        );
        self.now += interval;
    }

    fn compose_topology(&self) -> ComposedTopology {
        let endpoint = |&address: &SocketAddr| EndpointSpec { address, weight: 1 };
        let place = Locality::parse("r/a").expect("a place");
        let endpoints = self.static_addresses.iter().map(endpoint).collect();
        let pool = PoolSpec::new("web", vec![ZoneSpec::new(place, endpoints)]);
        let declared = Topology { pools: vec![Arc::new(pool)], ..Topology::default() };
        compose(&declared, &self.entries, &self.lookups, &|(_, address)| {
            self.down.contains(address)
        })
    }

    fn weighted_endpoints(&self) -> Vec<(String, u32)> {
        let zone = self.compose_topology().topology.pools[0].zones[0].clone();
        zone.endpoints
            .iter()
            .map(|endpoint| (endpoint.address.to_string(), endpoint.weight))
            .collect()
    }

    fn addresses(&self) -> Vec<String> {
        self.weighted_endpoints().into_iter().map(|(address, _)| address).collect()
    }
}
