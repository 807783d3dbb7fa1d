//! The topology that is declared, with the endpoints that names lead to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::logic::model::topology::{EndpointSpec, PoolSpec, Topology};

use super::address_filter::is_permitted;
use super::discovery_name::{DiscoveryEntry, DiscoveryName};
use super::lookup_answer::SrvTarget;
use super::lookup_scheduler::LookupScheduler;
use super::origin::EndpointOrigin;

/// Largest weight of an endpoint.
const MAX_WEIGHT: u64 = 1_000;

/// Where a record of weight 0 has a tenth of what the lightest of its like has: RFC 2782 wants a very
/// small chance for it.
const ZERO_WEIGHT_SCALE: u64 = 10;

/// An endpoint in a pool.
pub type PoolAddress = (Arc<str>, SocketAddr);

/// What names lead to.
#[derive(Clone, Debug, Default)]
pub struct ComposedTopology {
    /// All pools with all their endpoints.
    pub topology: Topology,
    /// Where endpoints come from that are not declared by their addresses.
    pub origins: HashMap<PoolAddress, Vec<EndpointOrigin>>,
    /// The endpoints that each name of a pool leads to.
    pub endpoints_by_name: HashMap<(Arc<str>, DiscoveryName), BTreeMap<SocketAddr, EndpointOrigin>>,
    /// Endpoints that are down, of names of which DNS says that there is nothing: left out.
    pub dropped_stale: HashSet<PoolAddress>,
    /// Endpoints that there was no room for.
    pub omitted_count: usize,
}

/// An endpoint that a name leads to.
struct CandidateEndpoint<'e> {
    entry: &'e DiscoveryEntry,
    address: SocketAddr,
    weight: u32,
    origin: EndpointOrigin,
}

/// Makes a topology of the declared one and of what is believed of names. `is_down` says whether the
/// verdict on an endpoint is down.
///
/// Of a service the targets of the best priority serve; the next ones join once all of the better ones
/// are down, and leave when one of them is back. An address counts once in a pool: as it is declared, else
/// by the first name that leads to it.
pub fn compose(
    declared: &Topology,
    entries: &[DiscoveryEntry],
    lookups: &LookupScheduler,
    is_down: &dyn Fn(&PoolAddress) -> bool,
) -> ComposedTopology {
    let mut entries_by_pool: HashMap<&str, Vec<&DiscoveryEntry>> = HashMap::new();
    for entry in entries {
        entries_by_pool.entry(&entry.pool).or_default().push(entry);
    }
    let mut composed = ComposedTopology::default();
    let mut pools = Vec::with_capacity(declared.pools.len());
    for pool in &declared.pools {
        let pool_entries = entries_by_pool.remove(&*pool.name).unwrap_or_default();
        if pool_entries.is_empty() {
            pools.push(Arc::clone(pool));
        } else {
            pools.push(Arc::new(composed.compose_pool(pool, &pool_entries, lookups, is_down)));
        }
    }
    composed.topology = Topology { pools, ..declared.clone() };
    composed
}

impl ComposedTopology {
    fn compose_pool(
        &mut self,
        declared: &PoolSpec,
        entries: &[&DiscoveryEntry],
        lookups: &LookupScheduler,
        is_down: &dyn Fn(&PoolAddress) -> bool,
    ) -> PoolSpec {
        let mut candidates = Vec::new();
        for entry in entries {
            let mut all = candidates_of_entry(entry, lookups, is_down);
            let accepted = all.len().min(lookups.max_answers());
            self.omitted_count += all.len() - accepted;
            all.truncate(accepted);
            candidates.extend(all);
        }
        let pool_address = |address| (Arc::clone(&declared.name), address);
        let static_addresses: HashSet<SocketAddr> =
            declared.zones.iter().flat_map(|zone| &zone.endpoints).map(|one| one.address).collect();
        let found = candidates.iter().map(|one| one.address);
        let has_live_endpoint =
            static_addresses.iter().copied().chain(found).any(|one| !is_down(&pool_address(one)));
        let mut pool = declared.clone();
        for CandidateEndpoint { entry, address, weight, origin: found } in candidates {
            let key = pool_address(address);
            if found.is_stale && has_live_endpoint && is_down(&key) {
                self.dropped_stale.insert(key);
                continue;
            }
            if static_addresses.contains(&address) {
                continue;
            }
            let origins = self.origins.entry(key).or_default();
            if origins.is_empty()
                && let Some(zone) = pool.zones.iter_mut().find(|zone| zone.locality == entry.place)
            {
                zone.endpoints.push(EndpointSpec { address, weight });
            }
            origins.push(found.clone());
            let name = (Arc::clone(&declared.name), entry.discovery_name.clone());
            self.endpoints_by_name.entry(name).or_default().insert(address, found);
        }
        pool
    }
}

fn candidates_of_entry<'e>(
    entry: &'e DiscoveryEntry,
    lookups: &LookupScheduler,
    is_down: &dyn Fn(&PoolAddress) -> bool,
) -> Vec<CandidateEndpoint<'e>> {
    match &entry.discovery_name {
        DiscoveryName::Host { name, port } => {
            let resolved = lookups.resolve_host(name);
            let candidate = |ip| CandidateEndpoint {
                entry,
                address: SocketAddr::new(ip, *port),
                weight: entry.weight,
                origin: EndpointOrigin {
                    discovery_name: entry.discovery_name.clone(),
                    target: None,
                    is_stale: resolved.is_stale,
                },
            };
            resolved.items.into_iter().map(candidate).collect()
        }
        DiscoveryName::Service { name } => {
            let resolved = lookups.resolve_service(name);
            let mut by_priority: BTreeMap<u16, Vec<&SrvTarget>> = BTreeMap::new();
            for service in &resolved.items {
                by_priority.entry(service.priority).or_default().push(service);
            }
            let mut all = Vec::new();
            for services in by_priority.values() {
                let candidates =
                    candidates_of_priority(entry, services, resolved.is_stale, lookups);
                let is_up =
                    |one: &CandidateEndpoint<'_>| !is_down(&(Arc::clone(&entry.pool), one.address));
                let is_enough = candidates.iter().any(is_up);
                all.extend(candidates);
                if is_enough {
                    break;
                }
            }
            all
        }
    }
}

/// The addresses of the targets of one priority.
fn candidates_of_priority<'e>(
    entry: &'e DiscoveryEntry,
    services: &[&SrvTarget],
    is_stale: bool,
    lookups: &LookupScheduler,
) -> Vec<CandidateEndpoint<'e>> {
    let weights: Vec<u16> = services.iter().map(|one| one.weight).collect();
    let weights = scale_weights(&weights, entry.weight);
    let mut all = Vec::new();
    for (service, weight) in services.iter().zip(weights) {
        let resolved = lookups.resolve_host(&service.target);
        let is_stale = is_stale || resolved.is_stale;
        // That a target is called localhost is said by whoever writes records, not by the operator.
        let permitted = resolved
            .items
            .into_iter()
            .filter(|&ip| is_permitted("", ip, lookups.allowed_networks()));
        all.extend(permitted.map(|ip| CandidateEndpoint {
            entry,
            address: SocketAddr::new(ip, service.port),
            weight,
            origin: EndpointOrigin {
                discovery_name: entry.discovery_name.clone(),
                target: Some(Arc::clone(&service.target)),
                is_stale,
            },
        }));
    }
    all
}

/// Weights of records, 0 to 65535, as those of endpoints, 1 to 1000. They are not changed unless they
/// have to be.
fn scale_weights(weights: &[u16], factor: u32) -> Vec<u32> {
    let largest = weights.iter().copied().max().unwrap_or(0);
    let has_none = weights.contains(&0) && largest > 0;
    let times = u64::from(factor) * if has_none { ZERO_WEIGHT_SCALE } else { 1 };
    let largest_scaled = u64::from(largest.max(1)) * times;
    let one = |weight: u16| {
        // Where nobody has a weight, all are alike; otherwise who has none gets as little as there is.
        let weight = if largest == 0 { times } else { u64::from(weight) * times };
        let fitting =
            if largest_scaled > MAX_WEIGHT { weight * MAX_WEIGHT / largest_scaled } else { weight };
        fitting.clamp(1, MAX_WEIGHT) as u32
    };
    weights.iter().map(|&weight| one(weight)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn srv_weights_are_scaled_to_endpoint_weights() {
        assert_eq!(scale_weights(&[0, 0], 3), [3, 3], "nobody has a weight: all are alike");
        assert_eq!(scale_weights(&[1, 3], 1), [1, 3], "what fits is left as it is");
        assert_eq!(scale_weights(&[1, 3], 2), [2, 6]);
        assert_eq!(
            scale_weights(&[0, 1, 2], 1),
            [1, 10, 20],
            "none is a small share, not an equal one"
        );
        assert_eq!(scale_weights(&[65535, 32768, 1], 1), [1000, 500, 1]);
        assert_eq!(scale_weights(&[65535, 0], 1000), [1000, 1]);
    }
}
