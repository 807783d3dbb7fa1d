//! Made-up endpoints for commands that resolve no names.

use std::sync::Arc;

use super::discovery_name::DiscoveryEntry;
use crate::logic::model::topology::{EndpointSpec, PoolSpec, Topology};

/// Where names are not looked up, each stands for so many endpoints.
pub const PLACEHOLDERS_PER_NAME: usize = 2;

/// The topology with made-up endpoints in place of what names stand for: [`STAND_INS`] each.
pub fn with_placeholder_endpoints(declared: &Topology, entries: &[DiscoveryEntry]) -> Topology {
    let mut next = 0u32;
    let pools = declared.pools.iter().map(|pool| {
        let mut pool = PoolSpec::clone(pool);
        for entry in entries.iter().filter(|entry| entry.pool == pool.name) {
            let zones = pool.zones.iter_mut().filter(|zone| zone.locality == entry.place);
            for zone in zones {
                for _ in 0..PLACEHOLDERS_PER_NAME {
                    next += 1;
                    // From 240.0.0.0/4, which nobody has.
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
