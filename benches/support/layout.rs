//! The configuration under test: pools of two zones, everything else at its default unless said
//! otherwise.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};

/// Zones of a pool. The first is preferred: it gets the traffic, and it fails.
pub(crate) const ZONES: usize = 2;

/// The number of endpoints of a zone.
pub(crate) const ZONE_ENDPOINTS: usize = 3;

/// Endpoints of a pool, those of the first zone first.
pub(crate) const POOL_ENDPOINTS: usize = ZONES * ZONE_ENDPOINTS;

/// Every endpoint has its own address, so that its packets can be distinguished.
const ENDPOINT_PORT: u16 = 7_077;

/// The port for probes over TLS.
pub(crate) const TLS_PORT: u16 = 7_078;

/// The most pools: each has its own network in 127.77.0.0/16.
pub(crate) const POOLS_MAX: i64 = 250;

/// The name of the zone that fails.
pub(crate) const FAILING_ZONE: &str = "bench/bench-1";

/// The address of the endpoint `index`, counted over all pools.
pub(crate) fn endpoint_address(index: usize) -> SocketAddr {
    let (pool, member) = (index / POOL_ENDPOINTS, index % POOL_ENDPOINTS);
    let host = Ipv4Addr::new(127, 77, pool as u8 + 1, member as u8 + 1);
    SocketAddr::from((host, ENDPOINT_PORT))
}

/// The name of a pool, which is also the Host of its requests.
pub(crate) fn pool_name(pool: usize) -> String {
    format!("pool-{pool}")
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PoolLayout {
    /// The `probe` of the pool.
    pub(crate) probe: String,
    /// Lines of its `detect`, such as `interval = "1s"`; empty for the defaults.
    pub(crate) detect: Vec<String>,
    /// The number of endpoints in use in each zone, of three.
    pub(crate) zone_sizes: [usize; ZONES],
}

impl PoolLayout {
    /// A pool with default settings.
    pub(crate) fn with_defaults(probe: &str) -> Self {
        let probe = probe.to_owned();
        Self { probe, detect: Vec::new(), zone_sizes: [ZONE_ENDPOINTS; ZONES] }
    }
}

/// A configuration file with `pools` equal pools and default settings.
pub(crate) fn equal_pools_config(pools: usize, probe: &str, listen: u16, admin: u16) -> String {
    pools_config(&vec![PoolLayout::with_defaults(probe); pools], listen, admin)
}

/// A configuration file with these pools.
pub(crate) fn pools_config(layouts: &[PoolLayout], listen: u16, admin: u16) -> String {
    let mut text = format!(
        "[admin]\naddress = \"127.0.0.1:{admin}\"\n\n\
         [[listen]]\naddress = \"127.0.0.1:{listen}\"\n"
    );
    let mut append = |lines: std::fmt::Arguments<'_>| {
        // Writing to a string never fails.
        let _ = text.write_fmt(lines);
    };
    for pool in (0..layouts.len()).map(pool_name) {
        append(format_args!("\n[[route]]\nhost = \"{pool}\"\npool = \"{pool}\"\n"));
    }
    for (pool, layout) in layouts.iter().enumerate() {
        let name = pool_name(pool);
        append(format_args!("\n[pool.{name}]\nprobe = {}\n", layout.probe));
        if !layout.detect.is_empty() {
            append(format_args!("\n[pool.{name}.detect]\n{}\n", layout.detect.join("\n")));
        }
        for (zone, &endpoints) in layout.zone_sizes.iter().enumerate() {
            let first = pool * POOL_ENDPOINTS + zone * ZONE_ENDPOINTS;
            let list: Vec<String> = (first..first + endpoints)
                .map(|index| format!("\"{}\"", endpoint_address(index)))
                .collect();
            let list = list.join(", ");
            append(format_args!(
                "\n[[pool.{name}.zone]]\nname = \"bench/bench-{}\"\nendpoints = [{list}]\n",
                zone + 1
            ));
        }
    }
    text
}
