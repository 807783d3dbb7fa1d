//! The publisher builds the snapshot that requests read from the states of pools.
//!
//! Inputs are the pools that have changed ([`Publisher::mark_dirty`]) and the routes. The output is
//! a [`Publication`]. Its cost depends on the changes: a zone is rebuilt only if one of its
//! endpoints changed, everything else is shared with the previous snapshot.

mod affinity_view;
pub(crate) mod traffic_split;
mod view;

pub(crate) use view::steady_zone_shares;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::pools::PoolState;
use crate::logic::model::snapshot::Snapshot;
use crate::logic::routing::RouteTable;

#[derive(Debug, Default)]
pub(crate) struct Publisher {
    routes: Arc<RouteTable>,
    version: u64,
    dirty_pools: BTreeSet<usize>,
    /// A publication is due even if no pool has changed.
    is_requested: bool,
}

/// A snapshot, and the pools whose panic it begins or ends.
#[derive(Debug)]
pub(crate) struct Publication {
    snapshot: Arc<Snapshot>,
    panic_changes: Vec<PanicChange>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PanicChange {
    pool: usize,
    is_active: bool,
}

impl Publication {
    pub(crate) fn panic_changes(&self) -> &[PanicChange] {
        &self.panic_changes
    }

    pub(crate) fn into_snapshot(self) -> Arc<Snapshot> {
        self.snapshot
    }
}

impl PanicChange {
    pub(crate) fn pool(self) -> usize {
        self.pool
    }

    pub(crate) fn is_active(self) -> bool {
        self.is_active
    }
}

impl Publisher {
    pub(crate) fn routes(&self) -> &RouteTable {
        &self.routes
    }

    /// The routes of the snapshots from now on.
    pub(crate) fn set_routes(&mut self, routes: Arc<RouteTable>) {
        self.routes = routes;
    }

    /// The next snapshot has another view of this pool.
    pub(crate) fn mark_dirty(&mut self, pool: usize) {
        self.dirty_pools.insert(pool);
    }

    /// Makes a publication due, with another view of each of the first `pools` pools.
    pub(crate) fn request(&mut self, pools: usize) {
        self.dirty_pools.extend(0..pools);
        self.is_requested = true;
    }

    pub(crate) fn has_dirty_pools(&self) -> bool {
        !self.dirty_pools.is_empty()
    }

    pub(crate) fn is_due(&self) -> bool {
        self.is_requested || self.has_dirty_pools()
    }

    /// Builds the views that have changed, and the snapshot of all.
    pub(crate) fn publish(
        &mut self,
        pools: &mut [PoolState],
        epoch: Instant,
        now: Instant,
    ) -> Publication {
        self.is_requested = false;
        let mut panic_changes = Vec::new();
        for index in std::mem::take(&mut self.dirty_pools) {
            let Some(pool) = pools.get_mut(index) else { continue };
            let view = view::build_view(pool, epoch, now);
            let is_active = view.is_panicking;
            if pool.replace_view(view) != is_active {
                panic_changes.push(PanicChange { pool: index, is_active });
            }
        }
        self.version += 1;
        let snapshot = Snapshot {
            version: self.version,
            routes: Arc::clone(&self.routes),
            pools: pools.iter().filter_map(|pool| pool.view().cloned()).collect(),
        };
        Publication { snapshot: Arc::new(snapshot), panic_changes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publication_is_due_once_per_request_or_change() {
        let (mut publisher, now) = (Publisher::default(), Instant::now());
        assert!(!publisher.is_due());
        publisher.request(0);
        assert!(publisher.is_due() && !publisher.has_dirty_pools());
        assert_eq!(publisher.publish(&mut [], now, now).into_snapshot().version, 1);
        publisher.mark_dirty(3);
        let publication = publisher.publish(&mut [], now, now);
        assert!(publication.panic_changes().is_empty(), "a pool that is gone has no view");
        assert!(!publisher.is_due());
    }
}
