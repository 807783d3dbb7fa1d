//! The declared topology with the endpoints of DNS names.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::logic::model::topology::{EndpointSpec, PoolSpec, Topology};

use super::address_filter::is_permitted;
use super::discovery_name::{DiscoveryEntry, DiscoveryName};
use super::lookup_answer::SrvTarget;
use super::lookup_scheduler::LookupScheduler;
use super::origin::EndpointOrigin;

/// Largest weight that an endpoint may have.
const MAX_WEIGHT: u64 = 1_000;

/// Scale of weights if any is zero: RFC 2782 gives such a record a very small chance, here a tenth
/// of weight 1.
const ZERO_WEIGHT_SCALE: u64 = 10;

/// The pool's name, and the address of an endpoint in it.
pub type PoolAddress = (Arc<str>, SocketAddr);

/// The topology with resolved endpoints.
#[derive(Clone, Debug, Default)]
pub struct ComposedTopology {
    pub topology: Topology,
    /// The origins of every endpoint that is not declared by address.
    pub origins: HashMap<PoolAddress, Vec<EndpointOrigin>>,
    /// The endpoints of each name, per pool.
    pub endpoints_by_name: HashMap<(Arc<str>, DiscoveryName), BTreeMap<SocketAddr, EndpointOrigin>>,
    /// Endpoints that are down and whose name has no records any more; they are left out.
    pub dropped_stale: HashSet<PoolAddress>,
    /// The number of endpoints beyond the limit of a name.
    pub omitted_count: usize,
}

/// An endpoint that a name resolves to.
struct CandidateEndpoint<'e> {
    entry: &'e DiscoveryEntry,
    address: SocketAddr,
    weight: u32,
    origin: EndpointOrigin,
}

/// Composes the topology from the declared one and the current answers. `is_down` returns whether
/// the verdict on an endpoint is down.
///
/// The targets of a service's best priority serve. The next priority joins when all better targets
/// are down, and leaves when one recovers. An address counts once per pool: as declared, or else by
/// the first name that resolves to it.
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
        let static_addresses: HashSet<SocketAddr> = declared
            .zones
            .iter()
            .flat_map(|zone| &zone.endpoints)
            .map(|endpoint| endpoint.address)
            .collect();
        let resolved = candidates.iter().map(|endpoint| endpoint.address);
        let has_live_endpoint = static_addresses
            .iter()
            .copied()
            .chain(resolved)
            .any(|address| !is_down(&pool_address(address)));
        let mut pool = declared.clone();
        for CandidateEndpoint { entry, address, weight, origin } in candidates {
            let key = pool_address(address);
            if origin.is_stale && has_live_endpoint && is_down(&key) {
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
            origins.push(origin.clone());
            let name = (Arc::clone(&declared.name), entry.discovery_name.clone());
            self.endpoints_by_name.entry(name).or_default().insert(address, origin);
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
                let is_up = |candidate: &CandidateEndpoint<'_>| {
                    !is_down(&(Arc::clone(&entry.pool), candidate.address))
                };
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

fn candidates_of_priority<'e>(
    entry: &'e DiscoveryEntry,
    services: &[&SrvTarget],
    is_stale: bool,
    lookups: &LookupScheduler,
) -> Vec<CandidateEndpoint<'e>> {
    let weights: Vec<u16> = services.iter().map(|service| service.weight).collect();
    let weights = scale_weights(&weights, entry.weight);
    let mut all = Vec::new();
    for (service, weight) in services.iter().zip(weights) {
        let resolved = lookups.resolve_host(&service.target);
        let is_stale = is_stale || resolved.is_stale;
        // A target named `localhost` is chosen by the author of the record, not by the operator.
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

/// Scales record weights (0 to 65535) to endpoint weights (1 to 1000), only as far as necessary.
fn scale_weights(weights: &[u16], factor: u32) -> Vec<u32> {
    let largest = weights.iter().copied().max().unwrap_or(0);
    let has_none = weights.contains(&0) && largest > 0;
    let times = u64::from(factor) * if has_none { ZERO_WEIGHT_SCALE } else { 1 };
    let largest_scaled = u64::from(largest.max(1)) * times;
    let scale = |weight: u16| {
        // If all weights are zero they are equal; otherwise a zero weight becomes the minimum.
        let weight = if largest == 0 { times } else { u64::from(weight) * times };
        let scaled =
            if largest_scaled > MAX_WEIGHT { weight * MAX_WEIGHT / largest_scaled } else { weight };
        scaled.clamp(1, MAX_WEIGHT) as u32
    };
    weights.iter().map(|&weight| scale(weight)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn srv_weights_are_scaled_to_endpoint_weights() {
        assert_eq!(scale_weights(&[0, 0], 3), [3, 3], "without weights all are equal");
        assert_eq!(scale_weights(&[1, 3], 1), [1, 3], "weights in range are unchanged");
        assert_eq!(scale_weights(&[1, 3], 2), [2, 6]);
        assert_eq!(
            scale_weights(&[0, 1, 2], 1),
            [1, 10, 20],
            "a zero weight is a small share, not an equal one"
        );
        assert_eq!(scale_weights(&[65535, 32768, 1], 1), [1000, 500, 1]);
        assert_eq!(scale_weights(&[65535, 0], 1000), [1000, 1]);
    }
}
