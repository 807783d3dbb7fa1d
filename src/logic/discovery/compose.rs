//! The topology that is declared, with the endpoints that names lead to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::logic::topology::{EndpointSpec, PoolSpec, Topology};

use super::guard::is_permitted;
use super::{Entry, Lookups, Service, Wanted};

/// Largest weight of an endpoint.
const WEIGHT_MAX: u64 = 1_000;

/// Where a record of weight 0 has a tenth of what the lightest of its like has: RFC 2782 wants a very
/// small chance for it.
const ABOVE_NOTHING: u64 = 10;

/// By which name an endpoint was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The name.
    pub wanted: Wanted,
    /// The target of a service whose address it is.
    pub target: Option<Arc<str>>,
    /// DNS says that there is nothing any more; the endpoint is from before.
    pub is_kept: bool,
}

/// An endpoint in a pool.
pub type Located = (Arc<str>, SocketAddr);

/// What names lead to.
#[derive(Clone, Debug, Default)]
pub struct Composed {
    /// All pools with all their endpoints.
    pub topology: Topology,
    /// Where endpoints come from that are not declared by their addresses.
    pub origins: HashMap<Located, Vec<Found>>,
    /// The endpoints that each name of a pool leads to.
    pub of_names: HashMap<(Arc<str>, Wanted), BTreeMap<SocketAddr, Found>>,
    /// Endpoints that are down, of names of which DNS says that there is nothing: left out.
    pub dropped: HashSet<Located>,
    /// Endpoints that there was no room for.
    pub left_out: usize,
}

/// An endpoint that a name leads to.
struct Candidate<'e> {
    entry: &'e Entry,
    address: SocketAddr,
    weight: u32,
    found: Found,
}

/// Makes a topology of the declared one and of what is believed of names. `is_down` says whether the
/// verdict on an endpoint is down.
///
/// Of a service the targets of the best priority serve; the next ones join once all of the better ones
/// are down, and leave when one of them is back. An address counts once in a pool: as it is declared, else
/// by the first name that leads to it.
#[must_use]
pub fn compose(
    declared: &Topology,
    entries: &[Entry],
    lookups: &Lookups,
    is_down: &dyn Fn(&Located) -> bool,
) -> Composed {
    let mut of_pools: HashMap<&str, Vec<&Entry>> = HashMap::new();
    for entry in entries {
        of_pools.entry(&entry.pool).or_default().push(entry);
    }
    let mut composed = Composed::default();
    let mut pools = Vec::with_capacity(declared.pools.len());
    for pool in &declared.pools {
        let of_pool = of_pools.remove(&*pool.name).unwrap_or_default();
        if of_pool.is_empty() {
            pools.push(Arc::clone(pool));
        } else {
            pools.push(Arc::new(composed.pool(pool, &of_pool, lookups, is_down)));
        }
    }
    composed.topology = Topology { pools, ..declared.clone() };
    composed
}

impl Composed {
    fn pool(
        &mut self,
        declared: &PoolSpec,
        entries: &[&Entry],
        lookups: &Lookups,
        is_down: &dyn Fn(&Located) -> bool,
    ) -> PoolSpec {
        let mut candidates = Vec::new();
        for entry in entries {
            let mut all = of_entry(entry, lookups, is_down);
            let left = all.len().min(lookups.max_answers());
            self.left_out += all.len() - left;
            all.truncate(left);
            candidates.extend(all);
        }
        let located = |address| (Arc::clone(&declared.name), address);
        let fixed: HashSet<SocketAddr> =
            declared.zones.iter().flat_map(|zone| &zone.endpoints).map(|one| one.address).collect();
        let found = candidates.iter().map(|one| one.address);
        let lives = fixed.iter().copied().chain(found).any(|one| !is_down(&located(one)));
        let mut pool = declared.clone();
        for Candidate { entry, address, weight, found } in candidates {
            let key = located(address);
            if found.is_kept && lives && is_down(&key) {
                self.dropped.insert(key);
                continue;
            }
            if fixed.contains(&address) {
                continue;
            }
            let origins = self.origins.entry(key).or_default();
            if origins.is_empty()
                && let Some(zone) = pool.zones.iter_mut().find(|zone| zone.place == entry.place)
            {
                zone.endpoints.push(EndpointSpec { address, weight });
            }
            origins.push(found.clone());
            let name = (Arc::clone(&declared.name), entry.wanted.clone());
            self.of_names.entry(name).or_default().insert(address, found);
        }
        pool
    }
}

fn of_entry<'e>(
    entry: &'e Entry,
    lookups: &Lookups,
    is_down: &dyn Fn(&Located) -> bool,
) -> Vec<Candidate<'e>> {
    match &entry.wanted {
        Wanted::Host { name, port } => {
            let belief = lookups.addresses(name);
            let candidate = |ip| Candidate {
                entry,
                address: SocketAddr::new(ip, *port),
                weight: entry.weight,
                found: Found {
                    wanted: entry.wanted.clone(),
                    target: None,
                    is_kept: belief.is_kept,
                },
            };
            belief.all.into_iter().map(candidate).collect()
        }
        Wanted::Service { name } => {
            let belief = lookups.services(name);
            let mut by_priority: BTreeMap<u16, Vec<&Service>> = BTreeMap::new();
            for service in &belief.all {
                by_priority.entry(service.priority).or_default().push(service);
            }
            let mut all = Vec::new();
            for services in by_priority.values() {
                let like = of_services(entry, services, belief.is_kept, lookups);
                let alive = |one: &Candidate<'_>| !is_down(&(Arc::clone(&entry.pool), one.address));
                let is_enough = like.iter().any(alive);
                all.extend(like);
                if is_enough {
                    break;
                }
            }
            all
        }
    }
}

/// The addresses of the targets of one priority.
fn of_services<'e>(
    entry: &'e Entry,
    services: &[&Service],
    is_kept: bool,
    lookups: &Lookups,
) -> Vec<Candidate<'e>> {
    let weights: Vec<u16> = services.iter().map(|one| one.weight).collect();
    let weights = scaled(&weights, entry.weight);
    let mut all = Vec::new();
    for (service, weight) in services.iter().zip(weights) {
        let belief = lookups.addresses(&service.target);
        let is_kept = is_kept || belief.is_kept;
        // That a target is called localhost is said by whoever writes records, not by the operator.
        let permitted = belief.all.into_iter().filter(|&ip| is_permitted("", ip, lookups.allow()));
        all.extend(permitted.map(|ip| Candidate {
            entry,
            address: SocketAddr::new(ip, service.port),
            weight,
            found: Found {
                wanted: entry.wanted.clone(),
                target: Some(Arc::clone(&service.target)),
                is_kept,
            },
        }));
    }
    all
}

/// Weights of records, 0 to 65535, as those of endpoints, 1 to 1000. They are not changed unless they
/// have to be.
fn scaled(weights: &[u16], times: u32) -> Vec<u32> {
    let largest = weights.iter().copied().max().unwrap_or(0);
    let has_none = weights.contains(&0) && largest > 0;
    let times = u64::from(times) * if has_none { ABOVE_NOTHING } else { 1 };
    let most = u64::from(largest.max(1)) * times;
    let one = |weight: u16| {
        // Where nobody has a weight, all are alike; otherwise who has none gets as little as there is.
        let weight = if largest == 0 { times } else { u64::from(weight) * times };
        let fitting = if most > WEIGHT_MAX { weight * WEIGHT_MAX / most } else { weight };
        fitting.clamp(1, WEIGHT_MAX) as u32
    };
    weights.iter().map(|&weight| one(weight)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_records_become_those_of_endpoints() {
        assert_eq!(scaled(&[0, 0], 3), [3, 3], "nobody has a weight: all are alike");
        assert_eq!(scaled(&[1, 3], 1), [1, 3], "what fits is left as it is");
        assert_eq!(scaled(&[1, 3], 2), [2, 6]);
        assert_eq!(scaled(&[0, 1, 2], 1), [1, 10, 20], "none is a small share, not an equal one");
        assert_eq!(scaled(&[65535, 32768, 1], 1), [1000, 500, 1]);
        assert_eq!(scaled(&[65535, 0], 1000), [1000, 1]);
    }
}
