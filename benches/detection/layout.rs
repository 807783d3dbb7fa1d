//! The configuration under test: pools of two zones, everything else at its default unless said
//! otherwise.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};

/// Zones of a pool. The first is preferred, so that it has the traffic and is the one that fails.
pub(crate) const ZONES: usize = 2;

/// Endpoints of a zone.
pub(crate) const ZONE_ENDPOINTS: usize = 3;

/// Endpoints of a pool, those of the first zone first.
pub(crate) const POOL_ENDPOINTS: usize = ZONES * ZONE_ENDPOINTS;

/// Every endpoint has an address of its own, so that its packets can be told from others'.
const ENDPOINT_PORT: u16 = 7_077;

/// Where it answers probes over TLS.
pub(crate) const TLS_PORT: u16 = 7_078;

/// Pools at most: each has a network of its own below 127.77.
pub(crate) const POOLS_MAX: i64 = 250;

/// The name of the zone that fails.
pub(crate) const FAILING_ZONE: &str = "bench/bench-1";

/// Where the endpoint number `index` listens, all pools' endpoints in a row.
pub(crate) fn address(index: usize) -> SocketAddr {
    let (pool, member) = (index / POOL_ENDPOINTS, index % POOL_ENDPOINTS);
    let host = Ipv4Addr::new(127, 77, pool as u8 + 1, member as u8 + 1);
    SocketAddr::from((host, ENDPOINT_PORT))
}

/// The name of a pool; a request's Host too.
pub(crate) fn pool_name(pool: usize) -> String {
    format!("pool-{pool}")
}

/// One pool.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shape {
    /// Its `probe`.
    pub(crate) probe: String,
    /// Lines of its `detect`, as `interval = "1s"`; none where everything is at its default.
    pub(crate) detect: Vec<String>,
    /// Endpoints of each zone that it has, of the three that there are.
    pub(crate) zones: [usize; ZONES],
}

impl Shape {
    /// With everything at its default.
    pub(crate) fn plain(probe: &str) -> Self {
        let probe = probe.to_owned();
        Self { probe, detect: Vec::new(), zones: [ZONE_ENDPOINTS; ZONES] }
    }
}

/// The configuration file with so many pools that are equal, everything else at its default.
pub(crate) fn config(pools: usize, probe: &str, listen: u16, admin: u16) -> String {
    config_of(&vec![Shape::plain(probe); pools], listen, admin)
}

/// The configuration file with these pools.
pub(crate) fn config_of(shapes: &[Shape], listen: u16, admin: u16) -> String {
    let mut text = format!(
        "[admin]\naddress = \"127.0.0.1:{admin}\"\n\n\
         [[listen]]\naddress = \"127.0.0.1:{listen}\"\n"
    );
    let mut put = |lines: std::fmt::Arguments<'_>| {
        // Text takes whatever is written to it.
        let _ = text.write_fmt(lines);
    };
    for pool in (0..shapes.len()).map(pool_name) {
        put(format_args!("\n[[route]]\nhost = \"{pool}\"\npool = \"{pool}\"\n"));
    }
    for (pool, shape) in shapes.iter().enumerate() {
        let name = pool_name(pool);
        put(format_args!("\n[pool.{name}]\nprobe = {}\n", shape.probe));
        if !shape.detect.is_empty() {
            put(format_args!("\n[pool.{name}.detect]\n{}\n", shape.detect.join("\n")));
        }
        for (zone, &endpoints) in shape.zones.iter().enumerate() {
            let first = pool * POOL_ENDPOINTS + zone * ZONE_ENDPOINTS;
            let list: Vec<String> =
                (first..first + endpoints).map(|one| format!("\"{}\"", address(one))).collect();
            let list = list.join(", ");
            put(format_args!(
                "\n[[pool.{name}.zone]]\nname = \"bench/bench-{}\"\nendpoints = [{list}]\n",
                zone + 1
            ));
        }
    }
    text
}
