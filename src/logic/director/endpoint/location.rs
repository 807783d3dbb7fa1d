//! The place of an endpoint in the topology.

/// Indexes into the director's pools, with the weight that is in force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndpointLocation {
    pool: usize,
    zone: usize,
    position: u32,
    weight: u32,
}

impl EndpointLocation {
    pub(crate) fn new((pool, zone): (usize, usize), position: u32, weight: u32) -> Self {
        Self { pool, zone, position, weight }
    }

    /// Its pool, by its index in the configuration.
    pub(crate) fn pool(self) -> usize {
        self.pool
    }

    /// Its zone, by its index among those of the pool.
    pub(crate) fn zone(self) -> usize {
        self.zone
    }

    /// Its index among the endpoints of the zone.
    pub(crate) fn position(self) -> u32 {
        self.position
    }

    /// Its weight: by an operator's order, or as declared.
    pub(crate) fn weight(self) -> u32 {
        self.weight
    }

    pub(crate) fn with_weight(self, weight: u32) -> Self {
        Self { weight, ..self }
    }
}
