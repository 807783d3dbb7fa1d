//! Placeholder endpoints for commands that resolve no names.

use std::sync::Arc;

use super::discovery_name::DiscoveryEntry;
use crate::logic::model::topology::{EndpointSpec, PoolSpec, Topology};

/// Placeholder endpoints per name.
pub const PLACEHOLDERS_PER_NAME: usize = 2;

/// Adds [`PLACEHOLDERS_PER_NAME`] made-up endpoints for every entry.
pub fn with_placeholder_endpoints(declared: &Topology, entries: &[DiscoveryEntry]) -> Topology {
    let mut next = 0u32;
    let pools = declared.pools.iter().map(|pool| {
        let mut pool = PoolSpec::clone(pool);
        for entry in entries.iter().filter(|entry| entry.pool == pool.name) {
            let zones = pool.zones.iter_mut().filter(|zone| zone.locality == entry.place);
            for zone in zones {
                for _ in 0..PLACEHOLDERS_PER_NAME {
                    next += 1;
                    // From 240.0.0.0/4, which is reserved (RFC 1112).
                    let ip = std::net::Ipv4Addr::from_bits(0xf000_0000 | (next & 0x0fff_ffff));
                    let address = (ip, 9).into();
                    zone.endpoints.push(EndpointSpec { address, weight: entry.weight });
                }
            }
        }
        Arc::new(pool)
    });
    Topology { pools: pools.collect(), ..declared.clone() }
}
